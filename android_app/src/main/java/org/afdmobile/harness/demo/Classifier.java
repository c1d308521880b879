package org.afdmobile.harness.demo;

import android.graphics.Bitmap;

import org.tensorflow.lite.DataType;
import org.tensorflow.lite.Interpreter;
import org.tensorflow.lite.Tensor;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.channels.Channels;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;

/**
 * Bitmap in, labels out: one class to copy into an app, for the files that afd-export makes.
 *
 * <p>Make it once, keep it, call it from one thread that is not the screen's, and close it.
 */
public final class Classifier implements AutoCloseable {
    /** One class of the classifier, with the share that softmax gives it, 0 to 1. */
    public record Label(String name, float share) {}

    private static final int END_RECORD_BYTES = 22;

    private final Interpreter interpreter;
    private final List<String> names;
    private final int side;
    private final boolean floats;
    private final ByteBuffer input;
    private final FloatBuffer logits;

    /**
     * Loads a model for the CPU.
     *
     * @param model a .tflite file of afd-export: 1xSxSx3 pixels in, float32 logits out
     * @throws IOException it cannot be read, has no labels, or is no such model
     */
    public Classifier(File model, int threads) throws IOException {
        names = labels(model);
        try {
            interpreter = new Interpreter(model, new Interpreter.Options().setNumThreads(threads));
        } catch (RuntimeException e) {
            throw new IOException(model + " is no model that TensorFlow Lite runs", e);
        }
        Tensor pixels = interpreter.getInputTensor(0);
        Tensor scores = interpreter.getOutputTensor(0);
        int[] shape = pixels.shape();
        floats = pixels.dataType() == DataType.FLOAT32;
        boolean fits = shape.length == 4 && shape[1] == shape[2] && shape[3] == 3
                && (floats || pixels.dataType() == DataType.UINT8)
                && scores.dataType() == DataType.FLOAT32 && scores.numElements() == names.size();
        if (!fits) {
            interpreter.close();
            throw new IOException(model + " is no classifier of afd-export with "
                    + names.size() + " labels");
        }
        side = shape[1];
        input = ByteBuffer.allocateDirect(pixels.numBytes()).order(ByteOrder.nativeOrder());
        logits = ByteBuffer.allocateDirect(scores.numBytes()).order(ByteOrder.nativeOrder())
                .asFloatBuffer();
    }

    /** Pixels of a side of the square that {@link #classify} takes. */
    public int side() {
        return side;
    }

    /**
     * Classifies a picture, best class first.
     *
     * @param square side x side pixels, upright, ARGB_8888
     */
    public List<Label> classify(Bitmap square) {
        int[] argb = new int[side * side];
        square.getPixels(argb, 0, side, 0, 0, side, side);
        rewind(input);
        for (int pixel : argb) {
            for (int shift = 16; shift >= 0; shift -= 8) { // R, G, B
                int value = pixel >> shift & 0xff; // 0 to 255: the graph normalises by itself
                if (floats) {
                    input.putFloat(value);
                } else {
                    input.put((byte) value);
                }
            }
        }
        rewind(input);
        rewind(logits);
        interpreter.run(input, logits);
        return shares();
    }

    private List<Label> shares() {
        float best = Float.NEGATIVE_INFINITY;
        for (int i = 0; i < names.size(); i++) {
            best = Math.max(best, logits.get(i));
        }
        double sum = 0;
        for (int i = 0; i < names.size(); i++) {
            sum += Math.exp(logits.get(i) - best);
        }
        List<Label> labels = new ArrayList<>();
        for (int i = 0; i < names.size(); i++) {
            float share = (float) (Math.exp(logits.get(i) - best) / sum);
            labels.add(new Label(names.get(i), share));
        }
        labels.sort((a, b) -> Float.compare(b.share(), a.share()));
        return labels;
    }

    /** The lines of labels.txt, which lies in a zip archive at the end of the file. */
    private static List<String> labels(File model) throws IOException {
        try (RandomAccessFile file = new RandomAccessFile(model, "r")) {
            byte[] end = new byte[END_RECORD_BYTES];
            if (file.length() >= end.length) {
                file.seek(file.length() - end.length);
                file.readFully(end);
            }
            ByteBuffer record = ByteBuffer.wrap(end).order(ByteOrder.LITTLE_ENDIAN);
            if (record.getInt(0) == 0x06054b50) { // the end of the archive's directory
                int directory = record.getInt(16);
                file.seek(directory + 42); // where its first entry says that the archive begins
                file.seek(Integer.toUnsignedLong(Integer.reverseBytes(file.readInt())));
                ZipInputStream archive =
                        new ZipInputStream(Channels.newInputStream(file.getChannel()));
                for (ZipEntry e = archive.getNextEntry(); e != null; e = archive.getNextEntry()) {
                    if (e.getName().equals("labels.txt")) {
                        return Arrays.asList(text(archive).split("\n"));
                    }
                }
            }
        }
        throw new IOException(model + " has no labels.txt inside: export it with afd-export");
    }

    private static String text(ZipInputStream entry) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        byte[] some = new byte[8192];
        for (int n = entry.read(some); n > 0; n = entry.read(some)) {
            bytes.write(some, 0, n);
        }
        return new String(bytes.toByteArray(), StandardCharsets.UTF_8);
    }

    /** ByteBuffer's own rewind came with Android 13. */
    private static void rewind(Buffer buffer) {
        buffer.rewind();
    }

    @Override
    public void close() {
        interpreter.close();
    }
}
