package org.afdmobile.harness.core;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.function.LongSupplier;

/** Times one call after the other. */
final class TimingLoop {
    private static final double NS_PER_MS = 1e6;

    private final LongSupplier clockNs;

    /** @param clockNs {@code System::nanoTime}, which no change of the phone's clock moves */
    TimingLoop(LongSupplier clockNs) {
        this.clockNs = clockNs;
    }

    /** How long it took, in ms. */
    double once(Runnable call) {
        long started = clockNs.getAsLong();
        call.run();
        return (clockNs.getAsLong() - started) / NS_PER_MS;
    }

    /** At least so many runs and so many ms; none begins after {@code maxMs}, but the first. */
    List<Double> series(Runnable call, int runs, int minMs, int maxMs) {
        List<Double> samples = new ArrayList<>();
        long started = clockNs.getAsLong();
        double elapsedMs = 0;
        while (samples.size() < runs || elapsedMs < minMs) {
            if (!samples.isEmpty() && elapsedMs > maxMs) {
                break;
            }
            samples.add(once(call));
            elapsedMs = (clockNs.getAsLong() - started) / NS_PER_MS;
        }
        return samples;
    }

    /** Of an even number, the mean of the middle two; null of none. */
    static Double median(List<Double> samples) {
        if (samples.isEmpty()) {
            return null;
        }
        List<Double> sorted = new ArrayList<>(samples);
        Collections.sort(sorted);
        int half = sorted.size() / 2;
        return sorted.size() % 2 == 1
                ? sorted.get(half) : (sorted.get(half - 1) + sorted.get(half)) / 2;
    }
}
