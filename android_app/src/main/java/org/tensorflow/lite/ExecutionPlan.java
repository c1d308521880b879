package org.tensorflow.lite;

/** How long a graph's execution plan is; in TensorFlow Lite's package, where alone it is visible. */
public final class ExecutionPlan {
    private ExecutionPlan() {}

    /** What is left to execute one after the other: operations, and a delegate's kernels. */
    public static int nodes(Interpreter interpreter) {
        return interpreter.getExecutionPlanLength();
    }
}
