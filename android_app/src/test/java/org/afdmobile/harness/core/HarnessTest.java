package org.afdmobile.harness.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertTrue;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;

import org.afdmobile.harness.host.HostMain;
import org.junit.BeforeClass;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;
import org.tensorflow.lite.HostRuntime;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Requests in, JSON files out, with the real interpreter. */
public final class HarnessTest {
    @BeforeClass
    public static void loadRuntime() {
        HostRuntime.load();
    }

    @Rule public final TemporaryFolder files = new TemporaryFolder();

    private final List<String> lines = new ArrayList<>();

    private Harness harness() {
        return new Harness(files.getRoot().toPath(), new HostMain.HostPhone(), HostMain.NONE,
                lines::add);
    }

    private JsonObject answer(Map<String, String> extras) throws IOException {
        assertTrue(harness().answer(extras));
        String runId = BenchRequest.runId(extras);
        Path folder = files.getRoot().toPath();
        Path file = runId == null
                ? folder.resolve("refused.json") : folder.resolve("results/" + runId + ".json");
        assertFalse(Files.exists(folder.resolve("pending/" + runId + ".json")));
        return JsonParser.parseString(Files.readString(file)).getAsJsonObject();
    }

    private void assertRefused(Map<String, String> extras, String field, String value,
            String inRemedy) throws IOException {
        JsonObject answer = answer(extras);
        assertEquals("error", answer.get("status").getAsString());
        JsonObject error = answer.getAsJsonObject("error");
        assertEquals(field, error.get("field").getAsString());
        assertEquals(value, error.get("value").isJsonNull() ? null
                : error.get("value").getAsString());
        String remedy = error.get("remedy").getAsString();
        assertTrue(remedy, remedy.contains(inRemedy));
        assertTrue(error.get("stack").getAsString().contains("\tat org.afdmobile"));
        assertTrue(answer.get("init_ms").isJsonNull());
        assertEquals(0, answer.getAsJsonArray("samples_ms").size());
    }

    private void assertFieldRefused(String field, String value, String inRemedy) throws Exception {
        Map<String, String> extras = Requests.good("float32");
        extras.put(field, value);
        assertRefused(extras, field, value, inRemedy);
    }

    @Test
    public void timesAModelWhoseOutputsAreRight() throws Exception {
        for (String model : List.of("float32", "uint8")) {
            JsonObject answer = answer(Requests.good(model));
            assertEquals("ok", answer.get("status").getAsString());
            assertEquals(5, answer.getAsJsonArray("samples_ms").size());
            assertEquals(2, answer.getAsJsonArray("warmup_ms").size());
            assertTrue(answer.get("init_ms").getAsDouble() > 0);
            assertTrue(answer.get("first_ms").getAsDouble() > 0);
            JsonObject memory = answer.getAsJsonObject("memory");
            assertTrue(memory.get("pss_kb").getAsLong() > 10_000);
            assertTrue(memory.get("pss_peak_kb").getAsLong() >= memory.get("pss_kb").getAsLong());
            assertTrue(memory.get("rss_peak_kb").getAsLong() >= memory.get("pss_kb").getAsLong());
            JsonObject golden = answer.getAsJsonArray("golden").get(0).getAsJsonObject();
            assertTrue(golden.get("max_abs_error").getAsDouble() < 1e-4);
            Path output = Path.of(golden.get("output_file").getAsString());
            assertEquals(5 * Float.BYTES, Files.size(output));
        }
    }

    @Test
    public void saysWhatTheDelegateTook() throws Exception {
        JsonObject delegation = answer(Requests.good("float32")).getAsJsonObject("delegation");
        assertEquals("cpu", delegation.get("asked").getAsString());
        assertEquals("cpu", delegation.get("actual").getAsString());
        assertEquals("TfLiteXNNPackDelegate", delegation.get("delegate").getAsString());
        assertEquals(3, delegation.get("graph_nodes").getAsInt());
        assertEquals(1, delegation.get("plan_nodes").getAsInt());
        assertEquals(3, delegation.get("delegated_nodes").getAsInt());
    }

    @Test
    public void checkingTimesNothing() throws Exception {
        Map<String, String> extras = Requests.good("float32");
        extras.put("mode", "check");
        extras.remove("golden_expected");
        extras.remove("max_abs_error");
        JsonObject answer = answer(extras);
        assertEquals("ok", answer.get("status").getAsString());
        assertEquals(0, answer.getAsJsonArray("samples_ms").size());
        assertTrue(answer.getAsJsonArray("golden").get(0).getAsJsonObject()
                .get("max_abs_error").isJsonNull());
        byte[] expected = Files.readAllBytes(Requests.resource("golden/float32_expected.bin"));
        byte[] output = Files.readAllBytes(files.getRoot().toPath().resolve("outputs/run-1/0.bin"));
        ByteBuffer left = ByteBuffer.wrap(expected).order(ByteOrder.LITTLE_ENDIAN);
        ByteBuffer right = ByteBuffer.wrap(output).order(ByteOrder.LITTLE_ENDIAN);
        while (left.hasRemaining()) {
            assertEquals(left.getFloat(), right.getFloat(), 1e-4);
        }
    }

    @Test
    public void wrongOutputsAreNotTimed() throws Exception {
        Map<String, String> extras = Requests.good("float32");
        Path wrong = files.newFile().toPath();
        Files.write(wrong, new byte[5 * Float.BYTES]);
        extras.put("golden_expected", wrong.toString());
        assertRefused(extras, "golden_expected", wrong.toString(), "a wrong model is not timed");
        JsonObject answer = answer(extras);
        assertEquals(31.98, answer.getAsJsonArray("golden").get(0).getAsJsonObject()
                .get("max_abs_error").getAsDouble(), 0.01);
        assertTrue(answer.get("first_ms").isJsonNull());
    }

    @Test
    public void unknownBackend() throws Exception {
        assertFieldRefused("backend", "npu", "cpu, gpu, nnapi");
    }

    @Test
    public void backendThatThisDeviceLacks() throws Exception {
        assertFieldRefused("backend", "gpu", "measure on cpu");
    }

    @Test
    public void otherSchemaVersion() throws Exception {
        assertFieldRefused("schema_version", "2", "install the app");
    }

    @Test
    public void unknownField() throws Exception {
        assertFieldRefused("thread", "2", "leave it out");
    }

    @Test
    public void missingField() throws Exception {
        Map<String, String> extras = Requests.good("float32");
        extras.remove("threads");
        assertRefused(extras, "threads", null, "a whole number from 1 to 64");
    }

    @Test
    public void runIdThatIsNoName() throws Exception {
        for (String id : List.of("", "a/b", ".hidden", "x".repeat(65))) {
            assertFieldRefused("run_id", id, "a name of its own");
        }
    }

    @Test
    public void negativeCounts() throws Exception {
        for (String field : List.of("threads", "warmup_runs", "warmup_min_ms", "runs", "min_ms",
                "max_ms")) {
            assertFieldRefused(field, "-1", "a whole number from ");
        }
        assertFieldRefused("threads", "two", "a whole number from 1");
        assertFieldRefused("runs", "99999999999", "a whole number from 1");
        assertFieldRefused("max_abs_error", "-0.1", "a number such as");
        assertFieldRefused("precision_loss_allowed", "yes", "true or false");
    }

    @Test
    public void missingModel() throws Exception {
        assertFieldRefused("model", "/nowhere/model.tflite", "push it");
        assertFieldRefused("model", "model.tflite", "begins with /");
        assertFieldRefused("model", files.getRoot().toString(), "push it");
    }

    @Test
    public void modelThatChangedOnTheWay() throws Exception {
        assertFieldRefused("model_sha256", "0".repeat(64), "push the model again");
        assertFieldRefused("model_sha256", "abc", "64 hexadecimal digits");
    }

    @Test
    public void corruptModel() throws Exception {
        byte[] whole = Files.readAllBytes(Requests.resource("float32.tflite"));
        for (byte[] content : List.of("no model".getBytes(), new byte[0],
                java.util.Arrays.copyOf(whole, 700))) {
            Path model = files.newFile().toPath();
            Files.write(model, content);
            assertRefused(Requests.of(model), "model", model.toString(), "again");
        }
    }

    @Test
    public void operatorThatTheRuntimeLacks() throws Exception {
        Path model = Requests.resource("unknown_operator.tflite");
        assertRefused(Requests.of(model), "model", model.toString(), "built-in operators");
        assertTrue(answer(Requests.of(model)).getAsJsonObject("error").get("message")
                .getAsString().contains("NotInAnyRuntime"));
    }

    @Test
    public void modelWithTwoInputs() throws Exception {
        Path model = Requests.resource("two_inputs.tflite");
        assertRefused(Requests.of(model), "model", model.toString(), "one input");
    }

    @Test
    public void interpreterThatRunsOutOfMemory() throws Exception {
        Path model = Requests.resource("too_large.tflite");
        Path input = files.newFile().toPath();
        Files.write(input, new byte[Float.BYTES]);
        Map<String, String> extras = Requests.of(model);
        extras.put("golden_inputs", input.toString());
        assertRefused(extras, "model", model.toString(), "memory");
    }

    @Test
    public void inputOfAnotherSize() throws Exception {
        String input = Requests.resource("golden/uint8_input.bin").toString();
        assertFieldRefused("golden_inputs", input, "768: 1x8x8x3 FLOAT32");
    }

    @Test
    public void expectedOutputOfAnotherSize() throws Exception {
        String input = Requests.resource("golden/uint8_input.bin").toString();
        assertFieldRefused("golden_expected", input, "20: 1x5 FLOAT32");
        assertFieldRefused("golden_expected", input + "," + input, "one expected output for each");
    }

    @Test
    public void noLimitForTheDifference() throws Exception {
        Map<String, String> extras = Requests.good("float32");
        extras.remove("max_abs_error");
        assertRefused(extras, "max_abs_error", null, "0.05");
    }

    @Test
    public void secondRunWhileOneIsOn() throws Exception {
        Map<String, String> extras = Requests.good("float32");
        Map<String, String> second = Requests.good("float32");
        second.put("run_id", "run-2");
        List<JsonObject> answers = new ArrayList<>();
        List<String> sameRunAnswered = new ArrayList<>();
        Harness first = new Harness(files.getRoot().toPath(), new HostMain.HostPhone(),
                HostMain.NONE, line -> {
                    if (line.equals("steady state")) {
                        try {
                            answers.add(answer(second));
                            sameRunAnswered.add(Boolean.toString(harness().answer(extras)));
                        } catch (IOException e) {
                            throw new IllegalStateException(e);
                        }
                    }
                });
        assertTrue(first.answer(extras));
        JsonObject error = answers.get(0).getAsJsonObject("error");
        assertEquals("run_id", error.get("field").getAsString());
        assertEquals("run-2", error.get("value").getAsString());
        assertTrue(error.get("message").getAsString().contains("run-1"));
        assertTrue(error.get("remedy").getAsString().contains("force-stop org.afdmobile.harness"));
        assertEquals("under the same id only the log can say it", List.of("false"),
                sameRunAnswered);
        assertTrue(String.join("\n", lines), lines.get(lines.size() - 1).startsWith("unsaved run-1"));
        Path result = files.getRoot().toPath().resolve("results/run-1.json");
        assertTrue(Files.readString(result).contains("\"status\": \"ok\""));
    }

    @Test
    public void resultsThatCannotBeSavedAreLogged() throws Exception {
        files.newFile("results");
        assertFalse(harness().answer(Requests.good("float32")));
        String last = lines.get(lines.size() - 1);
        assertTrue(last, last.startsWith("unsaved run-1 {"));
        JsonObject answer = JsonParser.parseString(last.substring("unsaved run-1 ".length()))
                .getAsJsonObject();
        assertEquals("files", answer.getAsJsonObject("error").get("field").getAsString());
        assertNotNull(answer.getAsJsonObject("error").get("remedy"));
    }
}
