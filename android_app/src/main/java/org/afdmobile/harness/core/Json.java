package org.afdmobile.harness.core;

import java.util.List;
import java.util.Map;

/**
 * Writes JSON. Android's own org.json orders keys and writes numbers differently from the JVM's,
 * and the golden files are compared byte by byte on both.
 */
final class Json {
    private Json() {}

    /** Of maps, lists, strings, booleans, numbers and nulls; one key a line. */
    static String write(Object value) {
        StringBuilder out = new StringBuilder();
        append(out, value, "\n");
        return out.append('\n').toString();
    }

    private static void append(StringBuilder out, Object value, String newline) {
        if (value instanceof String text) {
            quote(out, text);
        } else if (value instanceof Map<?, ?> map && !map.isEmpty()) {
            String separator = "{";
            for (Map.Entry<?, ?> entry : map.entrySet()) {
                out.append(separator).append(newline).append("  ");
                quote(out, (String) entry.getKey());
                append(out.append(": "), entry.getValue(), newline + "  ");
                separator = ",";
            }
            out.append(newline).append('}');
        } else if (value instanceof List<?> list) {
            String separator = "";
            out.append('[');
            for (Object item : list) {
                append(out.append(separator), item, newline + "  ");
                separator = ", ";
            }
            out.append(']');
        } else if (value instanceof Double number && !Double.isFinite(number)) {
            throw new IllegalArgumentException("JSON has no " + number);
        } else if (value == null || value instanceof Number || value instanceof Boolean) {
            out.append(value);
        } else {
            throw new IllegalArgumentException("JSON has no " + value.getClass());
        }
    }

    private static void quote(StringBuilder out, String text) {
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < 0x20 || Character.isSurrogate(c) || c == '\u2028' || c == '\u2029') {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        out.append('"');
    }
}
