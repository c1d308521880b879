package org.afdmobile.harness.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;

import org.junit.Test;

import java.util.Collections;
import java.util.List;

public final class TimingLoopTest {
    private long nowNs;
    private final TimingLoop loop = new TimingLoop(() -> nowNs);

    private void takeTenMs() {
        nowNs += 10_000_000;
    }

    @Test
    public void runsAsOftenAsAsked() {
        assertEquals(Collections.nCopies(7, 10.0), loop.series(this::takeTenMs, 7, 0, 1000));
    }

    @Test
    public void runsAsLongAsAsked() {
        assertEquals(5, loop.series(this::takeTenMs, 1, 50, 1000).size());
    }

    @Test
    public void noRunBeginsAfterTheLimit() {
        assertEquals(4, loop.series(this::takeTenMs, 100, 100, 30).size());
    }

    @Test
    public void noWarmUp() {
        assertEquals(List.of(), loop.series(this::takeTenMs, 0, 0, 1000));
    }

    @Test
    public void median() {
        assertEquals(2, TimingLoop.median(List.of(9.0, 1.0, 2.0)), 0);
        assertEquals(3, TimingLoop.median(List.of(9.0, 1.0, 2.0, 4.0)), 0);
        assertNull(TimingLoop.median(List.of()));
    }
}
