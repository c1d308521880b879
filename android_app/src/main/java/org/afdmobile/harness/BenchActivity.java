package org.afdmobile.harness;

import android.app.Activity;
import android.os.Bundle;
import android.os.Process;
import android.util.Log;
import android.view.WindowManager;
import android.widget.TextView;

import org.afdmobile.harness.core.Harness;

import java.io.File;
import java.util.Map;
import java.util.TreeMap;

/**
 * Answers one request, which comes as string extras ({@code am start -S -n PACKAGE/.BenchActivity
 * --es run_id ... }), with one JSON in the app's external files folder; see PROTOCOL.md.
 */
public final class BenchActivity extends Activity {
    private static final String TAG = "AfdHarness";

    private AndroidPhone phone;

    @Override
    protected void onCreate(Bundle savedInstanceState) {
        super.onCreate(savedInstanceState);
        getWindow().addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
        phone = new AndroidPhone(this);
        getWindow().setSustainedPerformanceMode(phone.sustainedPerformance());
        Map<String, String> extras = extras();
        TextView text = new TextView(this);
        text.setText(getString(R.string.measuring, extras.get("run_id")));
        setContentView(text);
        if (savedInstanceState == null) {
            new Thread(() -> answer(extras), "bench").start();
        } else {
            finish(); // Android made the screen anew; the run has been answered, or is lost.
        }
    }

    @Override
    protected void onPause() {
        super.onPause();
        phone.leaveTheFront();
    }

    private void answer(Map<String, String> extras) {
        // The interpreter's own threads are started from this one, and inherit the priority.
        Process.setThreadPriority(Process.THREAD_PRIORITY_URGENT_DISPLAY);
        File files = getExternalFilesDir(null);
        if (files == null) {
            Log.e(TAG, "unsaved " + extras.get("run_id") + ": the phone's storage is not there");
        } else {
            new Harness(files.toPath(), phone, new AndroidAccelerators(), line -> Log.i(TAG, line))
                    .answer(extras);
        }
        runOnUiThread(this::finishAndRemoveTask);
    }

    private Map<String, String> extras() {
        Map<String, String> extras = new TreeMap<>();
        Bundle bundle = getIntent().getExtras();
        if (bundle != null) {
            for (String key : bundle.keySet()) {
                extras.put(key, bundle.getString(key));
            }
        }
        return extras;
    }
}
