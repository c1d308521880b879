package org.afdmobile.harness;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.content.Intent;
import android.os.Looper;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;

import org.afdmobile.harness.core.Requests;
import org.junit.BeforeClass;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.annotation.Config;
import org.robolectric.shadows.ShadowLog;
import org.tensorflow.lite.HostRuntime;

import java.io.File;
import java.nio.file.Files;
import java.util.Map;

/** Extras in, JSON out, on Robolectric's Android 14. */
@RunWith(RobolectricTestRunner.class)
@Config(sdk = 34)
public final class BenchActivityTest {
    @BeforeClass
    public static void loadRuntime() {
        HostRuntime.load();
    }

    private JsonObject answer(Map<String, String> extras) throws Exception {
        Intent intent = new Intent();
        extras.forEach(intent::putExtra);
        File folder = RuntimeEnvironment.getApplication().getExternalFilesDir(null);
        File file = new File(folder, "results/" + extras.get("run_id") + ".json");
        try (ActivityController<BenchActivity> controller =
                Robolectric.buildActivity(BenchActivity.class, intent)) {
            BenchActivity activity = controller.setup().get();
            long deadline = System.nanoTime() + 20_000_000_000L;
            while (!activity.isFinishing() && System.nanoTime() < deadline) {
                Thread.sleep(10);
                shadowOf(Looper.getMainLooper()).idle();
            }
            assertTrue("it does not end", activity.isFinishing());
        }
        return JsonParser.parseString(Files.readString(file.toPath())).getAsJsonObject();
    }

    @Test
    public void answersItsExtras() throws Exception {
        JsonObject answer = answer(Requests.good("float32"));
        assertEquals(answer.toString(), "ok", answer.get("status").getAsString());
        assertEquals(5, answer.getAsJsonArray("samples_ms").size());
        assertEquals(34, answer.getAsJsonObject("device").get("sdk_int").getAsInt());
        JsonObject app = answer.getAsJsonObject("app");
        assertEquals("org.afdmobile.harness", app.get("package").getAsString());
        assertEquals(System.getProperty("app.version"), app.get("version").getAsString());
        assertEquals(0, answer.getAsJsonObject("thermal_before").get("status").getAsInt());
        assertTrue(answer.get("stayed_in_front").getAsBoolean());
        assertTrue(ShadowLog.getLogsForTag("AfdHarness").stream()
                .anyMatch(line -> line.msg.startsWith("result run-1 ok ")));
    }

    @Test
    public void anErrorIsAnAnswer() throws Exception {
        Map<String, String> extras = Requests.good("float32");
        extras.put("backend", "npu");
        JsonObject error = answer(extras).getAsJsonObject("error");
        assertEquals("backend", error.get("field").getAsString());
        assertEquals("npu", error.get("value").getAsString());
    }

    /** Without the GPU's library there is none: as on a phone whose GPU is not reached. */
    @Test
    public void aBackendThatCannotBeLoadedIsAnAnswer() throws Exception {
        Map<String, String> extras = Requests.good("float32");
        extras.put("backend", "gpu");
        JsonObject error = answer(extras).getAsJsonObject("error");
        assertEquals("backend", error.get("field").getAsString());
        assertTrue(error.get("remedy").getAsString().contains("measure on cpu"));
    }
}
