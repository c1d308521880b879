package org.afdmobile.harness.core;

import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Pattern;

/**
 * What is to be measured; PROTOCOL.md describes the fields.
 *
 * @param goldenExpected as many as goldenInputs, or none
 * @param maxAbsError what the outputs may differ; of no meaning without goldenExpected
 */
public record BenchRequest(
        String runId,
        Mode mode,
        Path model,
        String modelSha256,
        Backend backend,
        int threads,
        int warmupRuns,
        int warmupMinMs,
        int runs,
        int minMs,
        int maxMs,
        List<Path> goldenInputs,
        List<Path> goldenExpected,
        double maxAbsError,
        boolean precisionLossAllowed) {

    public static final int SCHEMA_VERSION = 1;

    private static final Pattern RUN_ID = Pattern.compile("[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}");
    private static final Pattern SHA256 = Pattern.compile("[0-9a-f]{64}");
    private static final int MANY = 1_000_000;
    private static final int AN_HOUR_MS = 3_600_000;
    private static final int MOST_THREADS = 64;

    public enum Mode {
        CHECK,
        TIME
    }

    public enum Backend {
        CPU,
        GPU,
        NNAPI;

        /** As requests and results have it. */
        public String text() {
            return name().toLowerCase(Locale.ROOT);
        }
    }

    /** The run id, or null where it cannot be one: it becomes a file's name. */
    public static String runId(Map<String, String> extras) {
        String value = extras.get("run_id");
        return value != null && RUN_ID.matcher(value).matches() ? value : null;
    }

    /**
     * Reads an intent's extras.
     *
     * @throws RefusedException a field is missing, unknown or cannot be so
     */
    public static BenchRequest parse(Map<String, String> extras) throws RefusedException {
        Fields fields = new Fields(extras);
        fields.take("schema_version", Integer.toString(SCHEMA_VERSION)::equals,
                "this app speaks version " + SCHEMA_VERSION,
                "install the app that came with the program that asks");
        String runId = fields.take("run_id", v -> RUN_ID.matcher(v).matches(),
                "it is no name of 1 to 64 letters, digits, '.', '_' and '-', without '.' first",
                "give each run a name of its own");
        Mode mode = fields.choice("mode", Mode.class);
        Path model = fields.file("model");
        String sha256 = fields.take("model_sha256", v -> SHA256.matcher(v).matches(),
                "it is no SHA-256", "give 64 hexadecimal digits, in lower case");
        Backend backend = fields.choice("backend", Backend.class);
        int threads = fields.integer("threads", 1, MOST_THREADS);
        int warmupRuns = fields.integer("warmup_runs", 0, MANY);
        int warmupMinMs = fields.integer("warmup_min_ms", 0, AN_HOUR_MS);
        int runs = fields.integer("runs", 1, MANY);
        int minMs = fields.integer("min_ms", 0, AN_HOUR_MS);
        int maxMs = fields.integer("max_ms", Math.max(1, minMs), AN_HOUR_MS);
        List<Path> inputs = fields.files("golden_inputs");
        List<Path> expected = List.of();
        double maxAbsError = 0;
        if (extras.containsKey("golden_expected")) {
            expected = fields.files("golden_expected");
            maxAbsError = fields.positive("max_abs_error");
            if (expected.size() != inputs.size()) {
                throw new RefusedException("golden_expected", extras.get("golden_expected"),
                        expected.size() + " files for " + inputs.size() + " golden inputs",
                        "give one expected output for each input, in the same order");
            }
        }
        boolean precisionLoss = fields.take("precision_loss_allowed",
                List.of("true", "false")::contains, "it is neither true nor false",
                "give true or false").equals("true");
        fields.nothingLeft();
        return new BenchRequest(runId, mode, model, sha256, backend, threads, warmupRuns,
                warmupMinMs, runs, minMs, maxMs, inputs, expected, maxAbsError, precisionLoss);
    }

    private interface Check {
        boolean holds(String value);
    }

    /** The extras, taken one by one. */
    private static final class Fields {
        private final Map<String, String> left;

        Fields(Map<String, String> extras) {
            left = new HashMap<>(extras);
        }

        String take(String field, Check check, String wrong, String remedy)
                throws RefusedException {
            String value = left.remove(field);
            if (value == null) {
                throw new RefusedException(field, null, "it is missing", remedy);
            }
            if (!check.holds(value)) {
                throw new RefusedException(field, value, wrong, remedy);
            }
            return value;
        }

        <E extends Enum<E>> E choice(String field, Class<E> choices) throws RefusedException {
            List<String> names = new ArrayList<>();
            for (E choice : choices.getEnumConstants()) {
                names.add(choice.name().toLowerCase(Locale.ROOT));
            }
            String value = take(field, names::contains, "there is no such " + field,
                    "give one of " + String.join(", ", names));
            return choices.getEnumConstants()[names.indexOf(value)];
        }

        int integer(String field, int least, int most) throws RefusedException {
            String remedy = "give a whole number from " + least + " to " + most;
            String value = take(field, v -> v.matches("-?\\d{1,9}"), "it is no such number", remedy);
            int number = Integer.parseInt(value);
            if (number < least || number > most) {
                throw new RefusedException(field, value, "it is out of range", remedy);
            }
            return number;
        }

        double positive(String field) throws RefusedException {
            String number = "\\d+(\\.\\d+)?([eE][-+]?\\d{1,2})?";
            return Double.parseDouble(take(field, v -> v.matches(number),
                    "it is no number from 0", "give a number such as 0.05 or 1e-4"));
        }

        Path file(String field) throws RefusedException {
            return file(field, take(field, v -> !v.isEmpty(), "it is empty", "give a file's path"));
        }

        List<Path> files(String field) throws RefusedException {
            List<Path> paths = new ArrayList<>();
            String remedy = "give the paths of files, with commas between them";
            String value = take(field, v -> !v.isEmpty(), "it is empty", remedy);
            for (String path : Arrays.asList(value.split(",", -1))) {
                paths.add(file(field, path));
            }
            return paths;
        }

        private static Path file(String field, String value) throws RefusedException {
            Path path = Paths.get(value);
            if (!path.isAbsolute()) {
                throw new RefusedException(field, value, "it is no absolute path",
                        "give a path that begins with /");
            }
            if (!Files.isRegularFile(path)) {
                throw new RefusedException(field, value, "there is no such file, or it is hidden",
                        "push it to /data/local/tmp or into the app's external files folder");
            }
            if (!Files.isReadable(path)) {
                throw new RefusedException(field, value, "the app may not read it",
                        "adb shell chmod a+r " + value);
            }
            return path;
        }

        void nothingLeft() throws RefusedException {
            for (Map.Entry<String, String> extra : left.entrySet()) {
                throw new RefusedException(extra.getKey(), extra.getValue(),
                        "there is no such field", "leave it out; PROTOCOL.md lists the fields");
            }
        }
    }
}
