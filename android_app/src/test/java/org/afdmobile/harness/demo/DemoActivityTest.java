package org.afdmobile.harness.demo;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNotEquals;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.Activity;
import android.content.Intent;
import android.graphics.Bitmap;
import android.graphics.Canvas;
import android.net.Uri;
import android.os.Looper;
import android.view.View;
import android.widget.SeekBar;
import android.widget.TextView;

import org.afdmobile.harness.R;
import org.afdmobile.harness.core.Requests;
import org.junit.Before;
import org.junit.BeforeClass;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.annotation.Config;
import org.robolectric.annotation.GraphicsMode;
import org.tensorflow.lite.HostRuntime;

import java.io.File;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.function.BooleanSupplier;

/** The demo's screen with a photo, drawn as Android draws; kept as target/demo.png. */
@RunWith(RobolectricTestRunner.class)
@Config(sdk = 34, qualifiers = "w400dp-h800dp-xhdpi")
@GraphicsMode(GraphicsMode.Mode.NATIVE)
public final class DemoActivityTest {
    private static final Uri PHOTO = Uri.parse("content://photos/1");

    private final File folder = RuntimeEnvironment.getApplication().getExternalFilesDir(null);

    @BeforeClass
    public static void loadRuntime() {
        HostRuntime.load();
    }

    @Before
    public void offerPhoto() {
        shadowOf(RuntimeEnvironment.getApplication().getContentResolver())
                .registerInputStreamSupplier(PHOTO,
                        () -> DemoActivityTest.class.getResourceAsStream("/photo.jpg"));
    }

    private static void push(String model, Path to) throws Exception {
        Files.copy(Requests.resource(model), to, StandardCopyOption.REPLACE_EXISTING);
    }

    private static String text(Activity activity, int id) {
        return ((TextView) activity.findViewById(id)).getText().toString();
    }

    private static void await(BooleanSupplier done) throws Exception {
        long deadline = System.nanoTime() + 20_000_000_000L;
        while (!done.getAsBoolean() && System.nanoTime() < deadline) {
            Thread.sleep(10);
            shadowOf(Looper.getMainLooper()).idle();
        }
        assertTrue("the screen does not change", done.getAsBoolean());
    }

    @Test
    public void saysWhatToPush() throws Exception {
        try (ActivityController<DemoActivity> controller =
                Robolectric.buildActivity(DemoActivity.class)) {
            DemoActivity activity = controller.setup().get();
            await(() -> text(activity, R.id.message).contains("adb push"));
            assertTrue(text(activity, R.id.message).contains(folder + "/corrected.tflite"));
        }
    }

    @Test
    public void comparesTheClassifiers() throws Exception {
        push("float32.tflite", folder.toPath().resolve("plain.tflite"));
        push("uint8.tflite", folder.toPath().resolve("corrected.tflite"));
        try (ActivityController<DemoActivity> controller =
                Robolectric.buildActivity(DemoActivity.class)) {
            DemoActivity activity = controller.setup().get();
            activity.findViewById(R.id.pick).performClick();
            Intent asked = shadowOf(activity).peekNextStartedActivityForResult().intent;
            assertEquals("image/*", asked.getType());
            shadowOf(activity).receiveResult(asked, Activity.RESULT_OK, new Intent().setData(PHOTO));
            await(() -> text(activity, R.id.corrected).contains("%"));
            String first = text(activity, R.id.plain);
            assertTrue(first, first.matches("(?s)\\d+\\.\\d ms\n(\n\u2007*\\d+\u2007%\u2007\u2007[a-z ]+){5}"));
            assertEquals("the same weights, fed as float32 and as uint8",
                    withoutTime(first), withoutTime(text(activity, R.id.corrected)));
            keepPicture(activity);

            SeekBar quality = activity.findViewById(R.id.quality);
            quality.setProgress(0);
            assertEquals("JPEG quality 1", text(activity, R.id.quality_text));
            await(() -> !withoutTime(text(activity, R.id.plain)).equals(withoutTime(first)));
            assertNotEquals(first, text(activity, R.id.plain));
        }
    }

    private static String withoutTime(String text) {
        return text.substring(text.indexOf('\n'));
    }

    private static void keepPicture(Activity activity) throws Exception {
        View screen = activity.getWindow().getDecorView();
        Bitmap bitmap =
                Bitmap.createBitmap(screen.getWidth(), screen.getHeight(), Bitmap.Config.ARGB_8888);
        screen.draw(new Canvas(bitmap));
        try (OutputStream png = Files.newOutputStream(Path.of("target/demo.png"))) {
            assertTrue(bitmap.compress(Bitmap.CompressFormat.PNG, 100, png));
        }
    }
}
