package org.afdmobile.harness.core;

import java.net.URISyntaxException;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.Map;
import java.util.TreeMap;

/** Requests that are in order, for tests to spoil. */
public final class Requests {
    private Requests() {}

    public static Path resource(String name) {
        URL url = Requests.class.getResource("/models/" + name);
        if (url == null) {
            throw new IllegalArgumentException("no test resource " + name);
        }
        try {
            return Path.of(url.toURI());
        } catch (URISyntaxException e) {
            throw new IllegalStateException(e);
        }
    }

    /** Golden check and a few runs of one of the test models: float32 or uint8. */
    public static Map<String, String> good(String model) throws Exception {
        Map<String, String> extras = of(resource(model + ".tflite"));
        extras.put("golden_inputs", resource("golden/" + model + "_input.bin").toString());
        extras.put("golden_expected", resource("golden/" + model + "_expected.bin").toString());
        extras.put("max_abs_error", "1e-4");
        return extras;
    }

    /** For any file as model, with golden inputs of the wrong size for most. */
    public static Map<String, String> of(Path model) throws Exception {
        Map<String, String> extras = new TreeMap<>();
        extras.put("schema_version", "1");
        extras.put("run_id", "run-1");
        extras.put("mode", "time");
        extras.put("model", model.toString());
        extras.put("model_sha256", sha256(model));
        extras.put("backend", "cpu");
        extras.put("threads", "1");
        extras.put("warmup_runs", "2");
        extras.put("warmup_min_ms", "0");
        extras.put("runs", "5");
        extras.put("min_ms", "0");
        extras.put("max_ms", "1000");
        extras.put("golden_inputs", resource("golden/uint8_input.bin").toString());
        extras.put("precision_loss_allowed", "false");
        return extras;
    }

    private static String sha256(Path file) throws Exception {
        byte[] digest = MessageDigest.getInstance("SHA-256").digest(Files.readAllBytes(file));
        return HexFormat.of().formatHex(digest);
    }
}
