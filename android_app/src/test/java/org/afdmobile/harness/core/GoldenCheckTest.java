package org.afdmobile.harness.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;

import org.junit.Test;

public final class GoldenCheckTest {
    private static GoldenCheck check(float[] values, float[] expected) {
        return GoldenCheck.of("in", "out", values, expected);
    }

    @Test
    public void theLargestDifferenceCounts() {
        GoldenCheck golden = check(new float[] {1, -2, 3}, new float[] {1.5f, -2, 2.75f});
        assertEquals(0.5, golden.maxAbsError(), 0);
        assertTrue(golden.within(0.5));
        assertFalse(golden.within(0.49));
    }

    @Test
    public void whatIsNotFiniteIsNeverRight() {
        for (float odd : new float[] {Float.NaN, Float.POSITIVE_INFINITY}) {
            GoldenCheck golden = check(new float[] {1, odd}, new float[] {1, odd});
            assertNull(golden.maxAbsError());
            assertEquals(1, golden.notFinite());
            assertFalse(golden.within(1e9));
            assertFalse(check(new float[] {1, 1}, new float[] {1, odd}).within(1e9));
        }
    }
}
