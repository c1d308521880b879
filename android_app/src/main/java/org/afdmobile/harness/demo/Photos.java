package org.afdmobile.harness.demo;

import android.content.ContentResolver;
import android.graphics.Bitmap;
import android.graphics.BitmapFactory;
import android.graphics.Canvas;
import android.graphics.Matrix;
import android.graphics.Paint;
import android.media.ExifInterface;
import android.net.Uri;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;

/** Photos as the classifiers want them. */
final class Photos {
    /** More pixels are not needed for a square of a few hundred. */
    private static final int LONG_SIDE = 2048;

    private Photos() {}

    /** Decodes a photo, upright and not larger than needed. */
    static Bitmap open(ContentResolver resolver, Uri photo) throws IOException {
        BitmapFactory.Options options = new BitmapFactory.Options();
        options.inJustDecodeBounds = true;
        decode(resolver, photo, options);
        options.inJustDecodeBounds = false;
        options.inSampleSize = 1;
        while (Math.max(options.outWidth, options.outHeight) / options.inSampleSize > LONG_SIDE) {
            options.inSampleSize *= 2;
        }
        Bitmap bitmap = decode(resolver, photo, options);
        if (bitmap == null) {
            throw new IOException("it is no picture that Android decodes");
        }
        return Bitmap.createBitmap(bitmap, 0, 0, bitmap.getWidth(), bitmap.getHeight(),
                upright(resolver, photo), true);
    }

    private static Bitmap decode(ContentResolver resolver, Uri photo, BitmapFactory.Options options)
            throws IOException {
        try (InputStream stream = stream(resolver, photo)) {
            return BitmapFactory.decodeStream(stream, null, options);
        }
    }

    /** Providers may give none, as for a photo that has been deleted since. */
    private static InputStream stream(ContentResolver resolver, Uri photo) throws IOException {
        InputStream stream = resolver.openInputStream(photo);
        if (stream == null) {
            throw new IOException("its app does not give it");
        }
        return stream;
    }

    /** What turns a photo upright, by its EXIF; nothing where that is missing or broken. */
    private static Matrix upright(ContentResolver resolver, Uri photo) throws IOException {
        int orientation;
        try (InputStream stream = stream(resolver, photo)) {
            orientation = new ExifInterface(stream).getAttributeInt(
                    ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL);
        } catch (IOException | RuntimeException broken) {
            orientation = ExifInterface.ORIENTATION_NORMAL;
        }
        Matrix upright = new Matrix();
        switch (orientation) {
            case ExifInterface.ORIENTATION_ROTATE_90, ExifInterface.ORIENTATION_TRANSVERSE ->
                    upright.setRotate(90);
            case ExifInterface.ORIENTATION_ROTATE_180 -> upright.setRotate(180);
            case ExifInterface.ORIENTATION_ROTATE_270, ExifInterface.ORIENTATION_TRANSPOSE ->
                    upright.setRotate(270);
            default -> { }
        }
        switch (orientation) {
            case ExifInterface.ORIENTATION_FLIP_HORIZONTAL -> upright.postScale(-1, 1);
            case ExifInterface.ORIENTATION_FLIP_VERTICAL, ExifInterface.ORIENTATION_TRANSPOSE,
                    ExifInterface.ORIENTATION_TRANSVERSE -> upright.postScale(1, -1);
            default -> { }
        }
        return upright;
    }

    /**
     * The middle of a photo as the classifiers are verified with it: the short side scaled to
     * 256/224 of `side`, then the middle, side x side pixels.
     *
     * <p>Halving averages pixels; one bilinear step over more than a half would leave most out.
     */
    static Bitmap square(Bitmap photo, int side) {
        if (photo.getWidth() == side && photo.getHeight() == side) {
            return photo;
        }
        int shortSide = Math.round(side * 256f / 224f);
        Bitmap half = photo;
        while (Math.min(half.getWidth(), half.getHeight()) >= 2 * shortSide) {
            half = Bitmap.createScaledBitmap(half, half.getWidth() / 2, half.getHeight() / 2, true);
        }
        float scale = shortSide / (float) Math.min(photo.getWidth(), photo.getHeight());
        int width = Math.max(shortSide, Math.round(photo.getWidth() * scale));
        int height = Math.max(shortSide, Math.round(photo.getHeight() * scale));
        Matrix middle = new Matrix();
        middle.setScale(width / (float) half.getWidth(), height / (float) half.getHeight());
        middle.postTranslate(-((width - side) / 2), -((height - side) / 2));
        Bitmap square = Bitmap.createBitmap(side, side, Bitmap.Config.ARGB_8888);
        new Canvas(square).drawBitmap(half, middle, new Paint(Paint.FILTER_BITMAP_FLAG));
        return square;
    }

    /** What JPEG makes of a picture, at a quality from 0 to 100. */
    static Bitmap compressed(Bitmap picture, int quality) {
        ByteArrayOutputStream jpeg = new ByteArrayOutputStream();
        picture.compress(Bitmap.CompressFormat.JPEG, quality, jpeg);
        return BitmapFactory.decodeByteArray(jpeg.toByteArray(), 0, jpeg.size());
    }
}
