package org.afdmobile.harness;

import android.os.Build;

import org.afdmobile.harness.core.Accelerators;
import org.afdmobile.harness.core.BenchRequest;
import org.afdmobile.harness.core.RefusedException;
import org.tensorflow.lite.Interpreter;
import org.tensorflow.lite.gpu.GpuDelegate;
import org.tensorflow.lite.gpu.GpuDelegateFactory;
import org.tensorflow.lite.nnapi.NnApiDelegate;

/** TensorFlow Lite's delegates for Android, set for a steady load. */
final class AndroidAccelerators implements Accelerators {
    @Override
    public Runnable addTo(Interpreter.Options options, BenchRequest request)
            throws RefusedException {
        try {
            if (request.backend() == BenchRequest.Backend.GPU) {
                GpuDelegate gpu = gpu(request.precisionLossAllowed());
                options.addDelegate(gpu);
                return gpu::close;
            }
            NnApiDelegate nnapi = nnapi(request.precisionLossAllowed());
            options.addDelegate(nnapi);
            return nnapi::close;
        } catch (RuntimeException | LinkageError e) {
            throw new RefusedException("backend", request.backend().text(), e.toString(),
                    "this phone offers no such backend: measure on cpu", e);
        }
    }

    private static GpuDelegate gpu(boolean precisionLossAllowed) {
        GpuDelegateFactory.Options options = new GpuDelegateFactory.Options();
        options.setPrecisionLossAllowed(precisionLossAllowed);
        options.setInferencePreference(
                GpuDelegateFactory.Options.INFERENCE_PREFERENCE_SUSTAINED_SPEED);
        return new GpuDelegate(options);
    }

    private static NnApiDelegate nnapi(boolean precisionLossAllowed) {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.O_MR1) {
            throw new IllegalStateException("NNAPI came with API 27");
        }
        NnApiDelegate.Options options = new NnApiDelegate.Options();
        options.setAllowFp16(precisionLossAllowed);
        options.setExecutionPreference(
                NnApiDelegate.Options.EXECUTION_PREFERENCE_SUSTAINED_SPEED);
        // NNAPI's own CPU kernels are no accelerator.
        options.setUseNnapiCpu(false);
        return new NnApiDelegate(options);
    }
}
