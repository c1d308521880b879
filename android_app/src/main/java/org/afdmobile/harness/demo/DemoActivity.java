package org.afdmobile.harness.demo;

import android.app.Activity;
import android.content.Intent;
import android.graphics.Bitmap;
import android.net.Uri;
import android.os.Bundle;
import android.widget.ImageView;
import android.widget.SeekBar;
import android.widget.TextView;

import org.afdmobile.harness.R;

import java.io.File;
import java.io.IOException;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;

/** A photo, compressed as much as the slider says, seen by two classifiers side by side. */
public final class DemoActivity extends Activity {
    private static final int PICK_PHOTO = 1;
    private static final int LOWEST_QUALITY = 1;
    private static final int SHOWN = 5;
    private static final int THREADS = 2;
    private static final char FIGURE_SPACE = '\u2007'; // as wide as a digit

    /** All work on models and pictures; the screen's own thread only draws. */
    private final ExecutorService worker = Executors.newSingleThreadExecutor();
    /** What was asked for last; older questions are dropped. */
    private final AtomicInteger latest = new AtomicInteger();

    private Classifier plain;
    private Classifier corrected;
    private Bitmap photo;

    private ImageView picture;
    private SeekBar quality;
    private TextView qualityText;
    private TextView message;
    private TextView plainText;
    private TextView correctedText;

    @Override
    protected void onCreate(Bundle savedInstanceState) {
        super.onCreate(savedInstanceState);
        setContentView(R.layout.demo);
        picture = findViewById(R.id.picture);
        quality = findViewById(R.id.quality);
        qualityText = findViewById(R.id.quality_text);
        message = findViewById(R.id.message);
        plainText = findViewById(R.id.plain);
        correctedText = findViewById(R.id.corrected);
        quality.setOnSeekBarChangeListener(new SeekBar.OnSeekBarChangeListener() {
            @Override
            public void onProgressChanged(SeekBar bar, int progress, boolean fromUser) {
                classify();
            }

            @Override
            public void onStartTrackingTouch(SeekBar bar) {}

            @Override
            public void onStopTrackingTouch(SeekBar bar) {}
        });
        findViewById(R.id.pick).setOnClickListener(view -> startActivityForResult(
                new Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE)
                        .setType("image/*"), PICK_PHOTO));
        worker.execute(this::load);
        classify();
    }

    @Override
    protected void onActivityResult(int request, int result, Intent data) {
        super.onActivityResult(request, result, data);
        if (request == PICK_PHOTO && result == RESULT_OK && data != null) {
            worker.execute(() -> open(data.getData()));
            classify();
        }
    }

    @Override
    protected void onDestroy() {
        super.onDestroy();
        worker.execute(() -> {
            if (plain != null) {
                plain.close();
            }
            if (corrected != null) {
                corrected.close();
            }
        });
        worker.shutdown();
    }

    private void load() {
        File folder = getExternalFilesDir(null);
        try {
            plain = warm(new Classifier(new File(folder, "plain.tflite"), THREADS));
            corrected = warm(new Classifier(new File(folder, "corrected.tflite"), THREADS));
        } catch (IOException e) {
            say(getString(R.string.push, folder, e.getMessage()));
        }
    }

    /** The first run takes longer than all others. */
    private static Classifier warm(Classifier classifier) {
        int side = classifier.side();
        classifier.classify(Bitmap.createBitmap(side, side, Bitmap.Config.ARGB_8888));
        return classifier;
    }

    private void open(Uri uri) {
        try {
            photo = Photos.open(getContentResolver(), uri);
        } catch (IOException | SecurityException e) {
            say(getString(R.string.unreadable, e.getMessage()));
        }
    }

    private void classify() {
        int number = latest.incrementAndGet();
        int wanted = Math.max(LOWEST_QUALITY, quality.getProgress());
        qualityText.setText(getString(R.string.quality, wanted));
        worker.execute(() -> {
            if (photo == null || plain == null || corrected == null || number != latest.get()) {
                return;
            }
            // The module was trained on pictures that were compressed as the classifier sees them.
            Bitmap seen = Photos.compressed(Photos.square(photo, plain.side()), wanted);
            String left = answer(plain, seen);
            String right = answer(corrected, seen);
            runOnUiThread(() -> {
                message.setText("");
                picture.setImageBitmap(seen);
                plainText.setText(left);
                correctedText.setText(right);
            });
        });
    }

    private static String answer(Classifier classifier, Bitmap square) {
        long started = System.nanoTime();
        List<Classifier.Label> labels = classifier.classify(square);
        double ms = (System.nanoTime() - started) / 1e6;
        StringBuilder text = new StringBuilder(String.format(Locale.ROOT, "%.1f ms\n", ms));
        for (Classifier.Label label : labels.subList(0, Math.min(SHOWN, labels.size()))) {
            String percent = String.format(Locale.ROOT, "\n%3.0f %%  ", 100 * label.share());
            text.append(percent.replace(' ', FIGURE_SPACE)).append(label.name());
        }
        return text.toString();
    }

    private void say(String text) {
        runOnUiThread(() -> message.setText(text));
    }
}
