package org.afdmobile.harness.core;

import org.tensorflow.lite.Interpreter;

/** Makes delegates, of which each system has its own. */
public interface Accelerators {
    /**
     * Adds the delegate for a request whose backend is not the CPU.
     *
     * @return what releases it, once the interpreter is closed
     * @throws RefusedException this system has no such backend
     */
    Runnable addTo(Interpreter.Options options, BenchRequest request) throws RefusedException;
}
