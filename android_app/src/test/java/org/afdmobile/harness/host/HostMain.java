package org.afdmobile.harness.host;

import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TreeMap;

import org.afdmobile.harness.core.Accelerators;
import org.afdmobile.harness.core.Harness;
import org.afdmobile.harness.core.Phone;
import org.afdmobile.harness.core.RefusedException;
import org.tensorflow.lite.HostRuntime;

/**
 * The app's core on a computer, for tests: real interpreter, CPU only.
 *
 * <pre>java -jar afd-harness-host.jar --files DIR [--device KEY VALUE]... [--es KEY VALUE]...</pre>
 *
 * DIR stands for the app's external files folder; --es are the intent's extras, as for am start;
 * --device replaces what is said of the phone. Prints the lines that go to logcat. Exit code 0: the
 * answer is in DIR, 1: it could not be saved, 2: usage.
 */
public final class HostMain {
    /** Its only backend is the CPU. */
    public static final Accelerators NONE = (options, request) -> {
        throw new RefusedException("backend", request.backend().text(),
                "this is no phone: it has no such backend", "measure on cpu");
    };

    private HostMain() {}

    public static void main(String[] arguments) {
        Map<String, String> extras = new TreeMap<>();
        HostPhone phone = new HostPhone();
        Path files = null;
        int i = 0;
        while (i < arguments.length) {
            int left = arguments.length - i;
            if (arguments[i].equals("--files") && left > 1) {
                files = Path.of(arguments[i + 1]);
                i += 2;
            } else if (arguments[i].equals("--es") && left > 2) {
                extras.put(arguments[i + 1], arguments[i + 2]);
                i += 3;
            } else if (arguments[i].equals("--device") && left > 2
                    && phone.device().containsKey(arguments[i + 1])) {
                phone.replace(arguments[i + 1], arguments[i + 2]);
                i += 3;
            } else {
                usage("what is " + arguments[i] + "?");
            }
        }
        if (files == null) {
            usage("--files is missing");
        }
        HostRuntime.load();
        Harness harness = new Harness(files, phone, NONE,
                line -> System.out.println("AfdHarness: " + line));
        System.exit(harness.answer(extras) ? 0 : 1);
    }

    private static void usage(String mistake) {
        System.err.println("error: " + mistake + "; usage: --files DIR "
                + "[--device KEY VALUE]... [--es KEY VALUE]...");
        System.exit(2);
    }

    /** This computer in a phone's words. */
    public static final class HostPhone implements Phone {
        private final Map<String, Object> device = new LinkedHashMap<>();

        public HostPhone() {
            device.put("manufacturer", "host");
            device.put("model", System.getProperty("os.name"));
            device.put("soc_model", null);
            device.put("android", "14");
            device.put("sdk_int", 34);
            device.put("abi", "x86_64");
        }

        void replace(String key, String value) {
            device.put(key, key.equals("sdk_int") ? (Object) Integer.valueOf(value) : value);
        }

        @Override
        public Map<String, Object> device() {
            return device;
        }

        @Override
        public Map<String, Object> app() {
            Map<String, Object> app = new LinkedHashMap<>();
            app.put("package", "org.afdmobile.harness");
            app.put("version", HostMain.class.getPackage().getImplementationVersion());
            return app;
        }

        @Override
        public Long pssKb() {
            return Phone.kb("/proc/self/smaps_rollup", "Pss:");
        }

        @Override
        public Thermal thermal() {
            return null;
        }

        @Override
        public boolean sustainedPerformance() {
            return false;
        }

        @Override
        public boolean stayedInFront() {
            return true;
        }
    }
}
