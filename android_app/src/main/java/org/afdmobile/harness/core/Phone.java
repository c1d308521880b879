package org.afdmobile.harness.core;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Map;

/** What the harness asks the system about; what is unknown is null. */
public interface Phone {
    /** manufacturer, model, soc_model, android, sdk_int, abi. */
    Map<String, Object> device();

    /** package, version. */
    Map<String, Object> app();

    /** This process's proportional set size. */
    Long pssKb();

    Thermal thermal();

    /** Whether sustained-performance mode was asked for, on a phone that has it. */
    boolean sustainedPerformance();

    /** Whether the harness has been on the screen ever since it was started. */
    boolean stayedInFront();

    /**
     * How hot it is.
     *
     * @param status PowerManager's, 0 (none) to 6 (shutdown)
     * @param headroom 1 is where throttling begins; null where the phone does not tell
     */
    record Thermal(int status, Double headroom) {}

    /** The most memory this process has ever held, as the kernel counts it. */
    static Long rssPeakKb() {
        return kb("/proc/self/status", "VmHWM:");
    }

    /** The number of kB after a word in one of the kernel's files. */
    static Long kb(String file, String word) {
        try {
            for (String line : Files.readAllLines(Paths.get(file))) {
                if (line.startsWith(word)) {
                    return Long.valueOf(line.replaceAll("\\D", ""));
                }
            }
        } catch (IOException | NumberFormatException hidden) {
            // Some makers hide it from apps.
        }
        return null;
    }
}
