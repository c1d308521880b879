package org.afdmobile.harness.core;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * What the model made of one golden input, beside what was expected.
 *
 * @param maxAbsError largest difference of two real values; null without an expected output, or
 *     where a value is not finite
 * @param notFinite how many values are NaN or infinite
 */
record GoldenCheck(String input, String outputFile, Double maxAbsError, int notFinite) {

    /** @param expected null where only the output is wanted */
    static GoldenCheck of(String input, String outputFile, float[] values, float[] expected) {
        int notFinite = 0;
        double worst = 0;
        for (int i = 0; i < values.length; i++) {
            if (!Float.isFinite(values[i])) {
                notFinite++;
            } else if (expected != null) {
                worst = Math.max(worst, Math.abs((double) values[i] - expected[i]));
            }
        }
        boolean comparable = expected != null && notFinite == 0 && Double.isFinite(worst);
        return new GoldenCheck(input, outputFile, comparable ? worst : null, notFinite);
    }

    /** Whether the output may be timed; one that cannot be compared may not. */
    boolean within(double limit) {
        return maxAbsError != null && maxAbsError <= limit;
    }

    Map<String, Object> toMap() {
        Map<String, Object> map = new LinkedHashMap<>();
        map.put("input", input);
        map.put("output_file", outputFile);
        map.put("max_abs_error", maxAbsError);
        map.put("not_finite", notFinite);
        return map;
    }
}
