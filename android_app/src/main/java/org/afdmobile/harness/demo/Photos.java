package org.afdmobile.harness.demo;

import android.content.ContentResolver;
import android.graphics.Bitmap;
import android.graphics.BitmapFactory;
import android.graphics.Matrix;
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
        Matrix upright = new Matrix();
        upright.setRotate(degrees(resolver, photo));
        return Bitmap.createBitmap(bitmap, 0, 0, bitmap.getWidth(), bitmap.getHeight(), upright,
                true);
    }

    private static Bitmap decode(ContentResolver resolver, Uri photo, BitmapFactory.Options options)
            throws IOException {
        try (InputStream stream = resolver.openInputStream(photo)) {
            return BitmapFactory.decodeStream(stream, null, options);
        }
    }

    private static int degrees(ContentResolver resolver, Uri photo) throws IOException {
        try (InputStream stream = resolver.openInputStream(photo)) {
            return switch (new ExifInterface(stream).getAttributeInt(
                    ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)) {
                case ExifInterface.ORIENTATION_ROTATE_90 -> 90;
                case ExifInterface.ORIENTATION_ROTATE_180 -> 180;
                case ExifInterface.ORIENTATION_ROTATE_270 -> 270;
                default -> 0;
            };
        }
    }

    /** The middle of a photo: a square of 7/8 of its short side, scaled to side x side pixels. */
    static Bitmap square(Bitmap photo, int side) {
        if (photo.getWidth() == side && photo.getHeight() == side) {
            return photo;
        }
        int crop = Math.min(photo.getWidth(), photo.getHeight()) * 7 / 8;
        Bitmap middle = Bitmap.createBitmap(photo, (photo.getWidth() - crop) / 2,
                (photo.getHeight() - crop) / 2, crop, crop);
        return Bitmap.createScaledBitmap(middle, side, side, true);
    }

    /** What JPEG makes of a picture, at a quality from 0 to 100. */
    static Bitmap compressed(Bitmap picture, int quality) {
        ByteArrayOutputStream jpeg = new ByteArrayOutputStream();
        picture.compress(Bitmap.CompressFormat.JPEG, quality, jpeg);
        return BitmapFactory.decodeByteArray(jpeg.toByteArray(), 0, jpeg.size());
    }
}
