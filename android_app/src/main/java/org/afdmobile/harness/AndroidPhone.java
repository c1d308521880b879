package org.afdmobile.harness;

import android.app.Activity;
import android.content.pm.PackageManager;
import android.os.Build;
import android.os.Debug;
import android.os.PowerManager;

import androidx.annotation.RequiresApi;

import org.afdmobile.harness.core.Phone;

import java.util.LinkedHashMap;
import java.util.Map;

/** The phone under an activity. */
final class AndroidPhone implements Phone {
    private final Activity activity;
    private final PowerManager power;
    private volatile boolean leftTheFront;

    AndroidPhone(Activity activity) {
        this.activity = activity;
        power = activity.getSystemService(PowerManager.class);
    }

    void leaveTheFront() {
        leftTheFront = true;
    }

    @Override
    public Map<String, Object> device() {
        Map<String, Object> facts = new LinkedHashMap<>();
        facts.put("manufacturer", Build.MANUFACTURER);
        facts.put("model", Build.MODEL);
        facts.put("soc_model", Build.VERSION.SDK_INT >= Build.VERSION_CODES.S ? socModel() : null);
        facts.put("android", Build.VERSION.RELEASE);
        facts.put("sdk_int", Build.VERSION.SDK_INT);
        facts.put("abi", Build.SUPPORTED_ABIS[0]);
        return facts;
    }

    @Override
    public Map<String, Object> app() {
        Map<String, Object> facts = new LinkedHashMap<>();
        facts.put("package", activity.getPackageName());
        try {
            facts.put("version", activity.getPackageManager()
                    .getPackageInfo(activity.getPackageName(), 0).versionName);
        } catch (PackageManager.NameNotFoundException e) {
            throw new IllegalStateException("Android does not know the app that it runs", e);
        }
        return facts;
    }

    @Override
    public Long pssKb() {
        Debug.MemoryInfo info = new Debug.MemoryInfo();
        Debug.getMemoryInfo(info);
        return (long) info.getTotalPss();
    }

    @Override
    public Thermal thermal() {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) {
            return null;
        }
        return new Thermal(thermalStatus(),
                Build.VERSION.SDK_INT >= Build.VERSION_CODES.R ? headroom() : null);
    }

    @Override
    public boolean sustainedPerformance() {
        return power.isSustainedPerformanceModeSupported();
    }

    @Override
    public boolean stayedInFront() {
        return !leftTheFront;
    }

    @RequiresApi(Build.VERSION_CODES.S)
    private static String socModel() {
        return Build.SOC_MODEL;
    }

    @RequiresApi(Build.VERSION_CODES.Q)
    private int thermalStatus() {
        return power.getCurrentThermalStatus();
    }

    /** Null where the maker gives none, or when asked again within a second. */
    @RequiresApi(Build.VERSION_CODES.R)
    private Double headroom() {
        float headroom = power.getThermalHeadroom(0);
        return Float.isNaN(headroom) ? null : Double.valueOf(headroom);
    }
}
