package org.afdmobile.harness.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;

import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

import java.io.BufferedReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** The core as a process of its own, which can be starved of memory and disk. */
public final class HostMainTest {
    @Rule public final TemporaryFolder files = new TemporaryFolder();

    private String output;

    /** @param limits for bash's ulimit */
    private Process start(String limits, Map<String, String> extras) throws Exception {
        List<String> command = new ArrayList<>(List.of("bash", "-c", limits + "exec \"$@\"", "bash",
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-Xmx64m", "-XX:-UsePerfData",
                "-cp", System.getProperty("java.class.path"),
                "org.afdmobile.harness.host.HostMain",
                "--files", files.getRoot().toString(), "--device", "model", "Pixel 8"));
        extras.forEach((key, value) -> command.addAll(List.of("--es", key, value)));
        return new ProcessBuilder(command).redirectErrorStream(true)
                .redirectInput(Path.of("/dev/null").toFile()).start();
    }

    private int run(String limits, Map<String, String> extras) throws Exception {
        Process process = start(limits, extras);
        output = new String(process.getInputStream().readAllBytes());
        assertTrue("it does not end", process.waitFor(60, TimeUnit.SECONDS));
        return process.exitValue();
    }

    private JsonObject read(String file) throws Exception {
        Path path = files.getRoot().toPath().resolve(file);
        return JsonParser.parseString(Files.readString(path)).getAsJsonObject();
    }

    @Test
    public void answersOnTheCommandLine() throws Exception {
        assertEquals(output, 0, run("", Requests.good("uint8")));
        JsonObject result = read("results/run-1.json");
        assertEquals("ok", result.get("status").getAsString());
        assertEquals("Pixel 8", result.getAsJsonObject("device").get("model").getAsString());
        assertTrue(output, output.contains("AfdHarness: result run-1 ok "));
    }

    /** As Android's low-memory killer does it, or a runtime that aborts: nothing of ours runs then. */
    @Test
    public void killedInTheMiddle() throws Exception {
        Map<String, String> extras = Requests.good("float32");
        extras.put("min_ms", "60000");
        extras.put("max_ms", "60000");
        Process process = start("", extras);
        try (BufferedReader lines = process.inputReader()) {
            String line = lines.readLine();
            while (!line.equals("AfdHarness: steady state")) {
                line = lines.readLine();
            }
        } finally {
            process.destroyForcibly().waitFor();
        }
        assertFalse(Files.exists(files.getRoot().toPath().resolve("results/run-1.json")));
        JsonObject answer = read("pending/run-1.json");
        assertEquals("error", answer.get("status").getAsString());
        JsonObject error = answer.getAsJsonObject("error");
        assertEquals("model", error.get("field").getAsString());
        assertEquals(extras.get("model"), error.get("value").getAsString());
        assertTrue(error.get("remedy").getAsString().contains("a smaller model"));
    }

    @Test
    public void storageFull() throws Exception {
        assertEquals(output, 1, run("ulimit -f 0; ", Requests.good("float32")));
        int start = output.indexOf("unsaved run-1 {");
        assertTrue(output, start >= 0);
        String json = output.substring(start + "unsaved run-1 ".length()).lines().findFirst().get();
        JsonObject error = JsonParser.parseString(json).getAsJsonObject().getAsJsonObject("error");
        assertEquals("files", error.get("field").getAsString());
        assertTrue(error.get("remedy").getAsString().contains("make room"));
        try (var left = Files.walk(files.getRoot().toPath())) {
            assertEquals("nothing half-written is left", 0, left.filter(Files::isRegularFile).count());
        }
    }
}
