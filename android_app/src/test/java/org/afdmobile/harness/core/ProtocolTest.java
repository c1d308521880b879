package org.afdmobile.harness.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;

import org.afdmobile.harness.host.HostMain;
import org.junit.BeforeClass;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;
import org.tensorflow.lite.HostRuntime;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** The golden files of protocol/, which the Python side reads too. */
public final class ProtocolTest {
    private static final Path PROTOCOL = Path.of("protocol");

    @BeforeClass
    public static void loadRuntime() {
        HostRuntime.load();
    }

    @Rule public final TemporaryFolder files = new TemporaryFolder();

    private static Map<String, String> extras() throws Exception {
        Map<String, String> extras = new TreeMap<>();
        read("request.json").entrySet()
                .forEach(e -> extras.put(e.getKey(), e.getValue().getAsString()));
        return extras;
    }

    private static JsonObject read(String name) throws Exception {
        return JsonParser.parseString(Files.readString(PROTOCOL.resolve(name))).getAsJsonObject();
    }

    private static BenchResult result() throws Exception {
        BenchResult result = new BenchResult();
        result.runId = "float16-gpu-3";
        result.request = extras();
        Map<String, Object> app = new TreeMap<>();
        app.put("package", "org.afdmobile.harness");
        app.put("version", "0.1.0");
        result.app = app;
        HostMain.HostPhone phone = new HostMain.HostPhone();
        phone.device().putAll(Map.of("manufacturer", "Google", "model", "Pixel 8",
                "soc_model", "Tensor G3", "abi", "arm64-v8a"));
        result.device = phone.device();
        result.runtimeVersion = "2.16.1";
        result.modelSha256 = result.request.get("model_sha256");
        result.sustainedPerformance = true;
        result.stayedInFront = true;
        result.startedAtEpochMs = 1_767_225_600_000L;
        result.golden.add(new GoldenCheck("/data/local/tmp/afd/0_input.bin",
                "/storage/emulated/0/Android/data/org.afdmobile.harness/files/outputs/"
                        + "float16-gpu-3/0.bin", 0.0078125, 0));
        result.golden.add(new GoldenCheck("/data/local/tmp/afd/1_input.bin",
                "/storage/emulated/0/Android/data/org.afdmobile.harness/files/outputs/"
                        + "float16-gpu-3/1.bin", 0.015625, 0));
        result.thermalBefore = new Phone.Thermal(0, 0.5);
        result.pssBeforeKb = 40_000L;
        result.pssKb = 90_000L;
        result.pssPeakKb = 95_000L;
        result.rssPeakKb = 150_000L;
        result.elapsedMs = 2500.5;
        return result;
    }

    @Test
    public void goldenRequest() throws Exception {
        Map<String, String> extras = extras();
        // Its files are on a phone.
        Path model = files.newFile().toPath();
        for (String field : List.of("model", "golden_inputs", "golden_expected")) {
            extras.replace(field, extras.get(field).replaceAll("[^,]+", model.toString()));
        }
        BenchRequest request = BenchRequest.parse(extras);
        assertEquals(new BenchRequest("float16-gpu-3", BenchRequest.Mode.TIME, model,
                "f6d7851ad39bf8c1c6e09d62e3b8d9a5a04698af11ab2b6eb37fb3c911dba1b8",
                BenchRequest.Backend.GPU, 4, 1, 500, 50, 1000, 150_000, List.of(model, model),
                List.of(model, model), 0.1, true), request);
    }

    @Test
    public void goldenResult() throws Exception {
        BenchResult result = result();
        result.delegation = new Delegation(BenchRequest.Backend.GPU, 218, 1);
        result.initMs = 812.5;
        result.firstMs = 9.25;
        result.warmupMs = List.of(4.5, 4.25);
        result.samplesMs = List.of(4.125, 4.0, 4.5, 4.25);
        result.thermalAfter = new Phone.Thermal(1, null);
        assertEquals(Files.readString(PROTOCOL.resolve("result.json")), result.toJson());
    }

    @Test
    public void goldenError() throws Exception {
        BenchResult result = result();
        result.request.put("max_abs_error", "0.01");
        result.fail("golden_expected", "/data/local/tmp/afd/1_expected.bin",
                "the output differs by 0.015625, 0 values are not finite; allowed is 0.01",
                "a wrong model is not timed: try another backend, or without precision loss", null);
        assertEquals(Files.readString(PROTOCOL.resolve("error.json")), result.toJson());
    }

    @Test
    public void aRealResultHasTheGoldenOnesKeys() throws Exception {
        Harness harness = new Harness(files.getRoot().toPath(), new HostMain.HostPhone(),
                HostMain.NONE, line -> {});
        assertTrue(harness.answer(Requests.good("float32")));
        Path path = files.getRoot().toPath().resolve("results/run-1.json");
        JsonObject real = JsonParser.parseString(Files.readString(path)).getAsJsonObject();
        JsonObject golden = read("result.json");
        assertEquals(golden.keySet(), real.keySet());
        for (String part : List.of("app", "device", "delegation", "memory")) {
            assertEquals(golden.getAsJsonObject(part).keySet(), real.getAsJsonObject(part).keySet());
        }
        assertEquals(golden.getAsJsonArray("golden").get(0).getAsJsonObject().keySet(),
                real.getAsJsonArray("golden").get(0).getAsJsonObject().keySet());
    }

    @Test
    public void jsonOfOddText() {
        String odd = "quote \" backslash \\ line\n tab\t euro € smile \uD83D\uDE00 lone \uD800 \u2028";
        String json = Json.write(Map.of("odd", odd));
        assertEquals(odd, JsonParser.parseString(json).getAsJsonObject().get("odd").getAsString());
        assertThrows(IllegalArgumentException.class, () -> Json.write(Map.of("x", Double.NaN)));
    }
}
