package org.afdmobile.harness.demo;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.content.ContentProvider;
import android.content.ContentResolver;
import android.content.ContentValues;
import android.content.res.AssetFileDescriptor;
import android.database.Cursor;
import android.graphics.Bitmap;
import android.graphics.BitmapFactory;
import android.net.Uri;

import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.annotation.Config;
import org.robolectric.annotation.GraphicsMode;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/**
 * Photos as Android itself decodes them, against what Python makes of the same files: the golden
 * pictures of every export. The app's squares are kept in target/golden_pictures.
 */
@RunWith(RobolectricTestRunner.class)
@Config(sdk = 34)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
public final class PhotosTest {
    private static final List<String> NAMES = List.of("turned", "mirrored", "grey", "small");
    private static final int SIDE = 224;
    private static final Uri PHOTO = Uri.parse("content://photos/1");

    /** Knows its photos, and hands none out. */
    public static final class GivesNothing extends ContentProvider {
        @Override
        public boolean onCreate() {
            return true;
        }

        @Override
        public AssetFileDescriptor openAssetFile(Uri uri, String mode) {
            return null;
        }

        @Override
        public Cursor query(Uri uri, String[] columns, String where, String[] values, String order) {
            return null;
        }

        @Override
        public String getType(Uri uri) {
            return "image/jpeg";
        }

        @Override
        public Uri insert(Uri uri, ContentValues values) {
            return null;
        }

        @Override
        public int delete(Uri uri, String where, String[] values) {
            return 0;
        }

        @Override
        public int update(Uri uri, ContentValues changed, String where, String[] values) {
            return 0;
        }
    }

    private static InputStream resource(String name) {
        return PhotosTest.class.getResourceAsStream("/golden_pictures/" + name);
    }

    private static ContentResolver offering(byte[] content) {
        ContentResolver resolver = RuntimeEnvironment.getApplication().getContentResolver();
        shadowOf(resolver).registerInputStreamSupplier(PHOTO,
                () -> new ByteArrayInputStream(content));
        return resolver;
    }

    private static Bitmap opened(String name) throws IOException {
        try (InputStream stream = resource(name)) {
            return Photos.open(offering(stream.readAllBytes()), PHOTO);
        }
    }

    /** Mean over pixels and channels, 0 to 255. */
    private static double difference(Bitmap one, Bitmap other) {
        assertEquals(one.getWidth(), other.getWidth());
        assertEquals(one.getHeight(), other.getHeight());
        long sum = 0;
        for (int y = 0; y < one.getHeight(); y++) {
            for (int x = 0; x < one.getWidth(); x++) {
                for (int shift = 0; shift <= 16; shift += 8) {
                    sum += Math.abs((one.getPixel(x, y) >> shift & 0xff)
                            - (other.getPixel(x, y) >> shift & 0xff));
                }
            }
        }
        return sum / (3.0 * one.getWidth() * one.getHeight());
    }

    @Test
    public void squaresAreThoseOfPython() throws Exception {
        Path kept = Files.createDirectories(Path.of("target/golden_pictures"));
        for (String name : NAMES) {
            Bitmap own = Photos.square(opened(name + ".jpg"), SIDE);
            try (OutputStream png = Files.newOutputStream(kept.resolve(name + ".png"))) {
                assertTrue(own.compress(Bitmap.CompressFormat.PNG, 100, png));
            }
            try (InputStream expected = resource(name + ".png")) {
                double difference = difference(own, BitmapFactory.decodeStream(expected));
                System.out.printf("%s: mean difference %.2f%n", name, difference);
                assertTrue(name + ": " + difference, difference < 3);
            }
        }
    }

    /** Four colours, no two alike, so that every turn and mirror image shows. */
    @Test
    public void everyOrientationIsTurnedUpright() throws Exception {
        Bitmap upright = opened("orientation_1.jpg");
        assertEquals(80, upright.getWidth());
        assertEquals(48, upright.getHeight());
        for (int orientation = 2; orientation <= 8; orientation++) {
            Bitmap turned = opened("orientation_" + orientation + ".jpg");
            assertTrue("orientation " + orientation, difference(turned, upright) < 4);
        }
    }

    @Test
    public void aPhotoOfItsSizeIsTakenAsItIs() {
        Bitmap photo = Bitmap.createBitmap(SIDE, SIDE, Bitmap.Config.ARGB_8888);
        assertEquals(photo, Photos.square(photo, SIDE));
    }

    @Test
    public void averagesWhatItShrinks() {
        Bitmap stripes = Bitmap.createBitmap(2048, 2048, Bitmap.Config.ARGB_8888);
        for (int y = 0; y < 2048; y++) {
            for (int x = 0; x < 2048; x++) {
                stripes.setPixel(x, y, x % 2 == 0 ? 0xff000000 : 0xffffffff);
            }
        }
        Bitmap square = Photos.square(stripes, SIDE);
        assertEquals(127, square.getPixel(100, 100) & 0xff, 2);
    }

    @Test
    public void whatCannotBeOpenedIsSaid() {
        Robolectric.buildContentProvider(GivesNothing.class).create("nothing");
        ContentResolver resolver = RuntimeEnvironment.getApplication().getContentResolver();
        IOException gone = assertThrows(IOException.class,
                () -> Photos.open(resolver, Uri.parse("content://nothing/1")));
        assertEquals("its app does not give it", gone.getMessage());
        IOException text = assertThrows(IOException.class,
                () -> Photos.open(offering("no picture".getBytes()), PHOTO));
        assertEquals("it is no picture that Android decodes", text.getMessage());
    }
}
