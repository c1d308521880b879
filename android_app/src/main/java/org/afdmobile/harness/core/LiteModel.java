package org.afdmobile.harness.core;

import java.io.IOException;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;

import org.afdmobile.harness.core.BenchRequest.Backend;
import org.tensorflow.lite.DataType;
import org.tensorflow.lite.ExecutionPlan;
import org.tensorflow.lite.Interpreter;
import org.tensorflow.lite.Tensor;

/**
 * A {@code .tflite} file with one input, ready to run on the asked backend. Of several outputs all
 * are fetched, and the first is the one that is looked at.
 */
final class LiteModel implements AutoCloseable {
    private final MappedByteBuffer file;
    private final Runnable releaseDelegate;
    private final Interpreter interpreter;
    private final ByteBuffer input;
    private final ByteBuffer output;
    private final Map<Integer, Object> outputs = new TreeMap<>();

    /** Maps a file into memory; the first half of opening a model, so that it can be hashed. */
    static MappedByteBuffer map(BenchRequest request) throws IOException, RefusedException {
        try (FileChannel channel = FileChannel.open(request.model())) {
            if (channel.size() == 0) {
                throw new RefusedException("model", request.model().toString(),
                        "the file is empty", "push it again");
            }
            return channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size());
        }
    }

    static String sha256(ByteBuffer content) throws NoSuchAlgorithmException {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        digest.update(content.duplicate());
        StringBuilder hex = new StringBuilder();
        for (byte b : digest.digest()) {
            hex.append(String.format("%02x", b));
        }
        return hex.toString();
    }

    /**
     * Gets a mapped file ready to run; there is no falling back to another backend.
     *
     * @throws RefusedException the runtime or the backend does not take it
     */
    LiteModel(BenchRequest request, MappedByteBuffer file, Accelerators accelerators)
            throws RefusedException {
        this.file = file;
        Interpreter.Options options = new Interpreter.Options().setNumThreads(request.threads());
        // What an accelerator leaves stays with TensorFlow Lite's own kernels: with XNNPACK too,
        // the execution plan would not tell the two apart.
        options.setUseXNNPACK(request.backend() == Backend.CPU);
        releaseDelegate = request.backend() == Backend.CPU
                ? () -> {} : accelerators.addTo(options, request);
        try {
            interpreter = new Interpreter(file, options);
        } catch (RuntimeException e) {
            releaseDelegate.run();
            throw refused(request, e);
        }
        try {
            checkContract(request);
        } catch (RefusedException e) {
            close();
            throw e;
        }
        input = buffer(interpreter.getInputTensor(0));
        for (int i = 0; i < interpreter.getOutputTensorCount(); i++) {
            outputs.put(i, buffer(interpreter.getOutputTensor(i)));
        }
        output = (ByteBuffer) outputs.get(0);
    }

    private void checkContract(BenchRequest request) throws RefusedException {
        int inputs = interpreter.getInputTensorCount();
        int outputs = interpreter.getOutputTensorCount();
        if (inputs != 1 || outputs < 1) {
            throw new RefusedException("model", request.model().toString(),
                    "it has " + inputs + " inputs and " + outputs + " outputs",
                    "give a model with one input");
        }
        for (Tensor t : List.of(interpreter.getInputTensor(0), interpreter.getOutputTensor(0))) {
            if (!List.of(DataType.FLOAT32, DataType.UINT8, DataType.INT8).contains(t.dataType())) {
                throw new RefusedException("model", request.model().toString(),
                        "tensor " + t.name() + " is of type " + t.dataType(),
                        "give a model of float32, uint8 or int8");
            }
        }
    }

    private static RefusedException refused(BenchRequest request, RuntimeException e) {
        String model = request.model().toString();
        String text = String.valueOf(e.getMessage()).trim().replaceAll("\\s+", " ");
        String lower = text.toLowerCase(Locale.ROOT);
        if (lower.contains("flatbuffer") || lower.contains("valid tensorflow lite model")) {
            return new RefusedException("model", model, text,
                    "it is no TFLite model, or a broken one: export it again", e);
        }
        if (lower.contains("custom op") || lower.contains("find op for builtin")) {
            return new RefusedException("model", model, text,
                    "it has an operator that this runtime lacks: convert it to built-in "
                            + "operators, or build the app with a newer runtime", e);
        }
        if (request.backend() != Backend.CPU) {
            return new RefusedException("backend", request.backend().text(), text,
                    "this backend does not take the model: measure on cpu, or see placement.json "
                            + "of the export for the operations in its way", e);
        }
        return new RefusedException("model", model, text,
                "the runtime cannot prepare it: export it again", e);
    }

    private static ByteBuffer buffer(Tensor tensor) {
        return ByteBuffer.allocateDirect(tensor.numBytes()).order(ByteOrder.nativeOrder());
    }

    /** How many bytes {@link #feed} takes. */
    int inputBytes() {
        return input.capacity();
    }

    /** Such as {@code 1x224x224x3 FLOAT32}. */
    String inputContract() {
        return contract(interpreter.getInputTensor(0));
    }

    /** Likewise, of the output. */
    String outputContract() {
        return contract(interpreter.getOutputTensor(0));
    }

    private static String contract(Tensor tensor) {
        List<String> sides = new ArrayList<>();
        for (int side : tensor.shape()) {
            sides.add(Integer.toString(side));
        }
        return String.join("x", sides) + " " + tensor.dataType();
    }

    /** Sets the input, in the tensor's own type, for all runs to come. */
    void feed(byte[] values) {
        rewind(input);
        input.put(values);
    }

    /** One inference, copies in and out included, as an app has it. */
    void run() {
        rewind(input);
        for (Object buffer : outputs.values()) {
            rewind((ByteBuffer) buffer);
        }
        interpreter.runForMultipleInputsOutputs(new Object[] {input}, outputs);
    }

    /** The output in the tensor's own type. */
    byte[] outputBytes() {
        byte[] bytes = new byte[output.capacity()];
        rewind(output);
        output.get(bytes);
        return bytes;
    }

    /** The output in real values. */
    float[] outputValues() {
        Tensor tensor = interpreter.getOutputTensor(0);
        float[] values = new float[tensor.numElements()];
        rewind(output);
        if (tensor.dataType() == DataType.FLOAT32) {
            output.asFloatBuffer().get(values);
            return values;
        }
        Tensor.QuantizationParams steps = tensor.quantizationParams();
        for (int i = 0; i < values.length; i++) {
            int step = tensor.dataType() == DataType.UINT8 ? output.get(i) & 0xff : output.get(i);
            values[i] = (step - steps.getZeroPoint()) * steps.getScale();
        }
        return values;
    }

    /**
     * How long the execution plan is: 1 means that the delegate took everything. TensorFlow Lite's
     * Java interface tells no more of what a delegate took.
     */
    int planNodes() {
        return ExecutionPlan.nodes(interpreter);
    }

    /** How many operations the file has: the plan's length without any delegate. */
    int graphNodes() {
        Interpreter.Options plain = new Interpreter.Options().setUseXNNPACK(false);
        try (Interpreter undelegated = new Interpreter(file, plain)) {
            return ExecutionPlan.nodes(undelegated);
        }
    }

    /** ByteBuffer's own rewind came with Android 13. */
    private static void rewind(Buffer buffer) {
        buffer.rewind();
    }

    @Override
    public void close() {
        interpreter.close();
        releaseDelegate.run();
    }
}
