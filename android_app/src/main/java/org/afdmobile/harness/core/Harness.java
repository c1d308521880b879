package org.afdmobile.harness.core;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.MappedByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;

import org.tensorflow.lite.TensorFlowLite;

/** Answers requests: reads one, measures what it asks for, writes what came of it. */
public final class Harness {
    /** The run that is on, in whichever instance: two at once would disturb each other. */
    private static final AtomicReference<String> RUNNING = new AtomicReference<>();

    private final ResultFolder folder;
    private final Phone phone;
    private final Accelerators accelerators;
    private final Consumer<String> log;
    private final TimingLoop loop = new TimingLoop(System::nanoTime);

    /**
     * @param files the folder that gets results, pending and outputs
     * @param log takes one line at a time
     */
    public Harness(Path files, Phone phone, Accelerators accelerators, Consumer<String> log) {
        folder = new ResultFolder(files);
        this.phone = phone;
        this.accelerators = accelerators;
        this.log = log;
    }

    /**
     * Answers an intent's extras with a JSON file, whatever goes wrong.
     *
     * @return whether the answer could be saved; if not, it is in the log
     */
    public boolean answer(Map<String, String> extras) {
        long startedNs = System.nanoTime();
        BenchResult result = new BenchResult();
        result.startedAtEpochMs = System.currentTimeMillis();
        result.runId = BenchRequest.runId(extras);
        result.request = new TreeMap<>(extras);
        boolean sameRunIsOn = result.runId != null && result.runId.equals(RUNNING.get());
        try {
            result.app = phone.app();
            result.device = phone.device();
            result.runtimeVersion = TensorFlowLite.runtimeVersion();
            alone(BenchRequest.parse(extras), result);
        } catch (RefusedException e) {
            result.fail(e.field, e.value, e.getMessage(), e.remedy, e);
        } catch (IOException e) {
            result.fail("files", e.getMessage(), "a file cannot be read or written: " + e,
                    "make room on the phone, " + folder.freeMb() + " MB are free; "
                            + "then push what was given again", e);
        } catch (OutOfMemoryError e) {
            result.fail("model", extras.get("model"), "the app ran out of memory: " + e,
                    "close other apps, or give a smaller model", e);
        } catch (Throwable e) {
            result.fail("app", null, "the harness failed: " + e,
                    "report it with this file and adb logcat", e);
        }
        result.stayedInFront = phone.stayedInFront();
        result.elapsedMs = (System.nanoTime() - startedNs) / 1e6;
        return !sameRunIsOn && save(result) || unsaved(result);
    }

    private void alone(BenchRequest request, BenchResult result) throws Exception {
        if (!RUNNING.compareAndSet(null, request.runId())) {
            throw new RefusedException("run_id", request.runId(),
                    "run " + RUNNING.get() + " is on",
                    "wait for its result, or end it: adb shell am force-stop "
                            + result.app.get("package"));
        }
        try {
            measure(request, result);
        } finally {
            RUNNING.set(null);
        }
    }

    private void measure(BenchRequest request, BenchResult result)
            throws IOException, RefusedException, GeneralSecurityException {
        log.accept("run " + request.runId() + ": " + request.backend().text() + ", "
                + request.threads() + " threads, " + request.model());
        forget(request.runId());
        expectTheWorst(request, result);
        result.thermalBefore = phone.thermal();
        result.sustainedPerformance = phone.sustainedPerformance();
        result.readMemory(phone);
        result.pssBeforeKb = result.pssKb;
        MappedByteBuffer file = LiteModel.map(request);
        result.modelSha256 = LiteModel.sha256(file);
        if (!result.modelSha256.equals(request.modelSha256())) {
            throw new RefusedException("model_sha256", request.modelSha256(),
                    request.model() + " has " + result.modelSha256, "push the model again");
        }
        long startedNs = System.nanoTime();
        try (LiteModel model = new LiteModel(request, file, accelerators)) {
            result.initMs = (System.nanoTime() - startedNs) / 1e6;
            log.accept("init " + result.initMs + " ms");
            result.readMemory(phone);
            check(request, model, result);
            if (request.mode() == BenchRequest.Mode.TIME) {
                time(request, model, result);
            }
            result.thermalAfter = phone.thermal();
            result.delegation =
                    new Delegation(request.backend(), model.graphNodes(), model.planNodes());
        }
    }

    /** Runs the golden inputs, the first of which is the first inference of all. */
    private void check(BenchRequest request, LiteModel model, BenchResult result)
            throws IOException, RefusedException {
        List<byte[]> inputs = read("golden_inputs", request.goldenInputs(), model.inputBytes(),
                model.inputContract());
        List<float[]> expected = new ArrayList<>();
        for (int i = 0; i < inputs.size(); i++) {
            model.feed(inputs.get(i));
            double ms = once(request, model);
            if (i == 0) {
                result.firstMs = ms;
                for (byte[] raw : read("golden_expected", request.goldenExpected(),
                        Float.BYTES * model.outputValues().length,
                        model.outputContract() + " as float32")) {
                    expected.add(floats(raw));
                }
            }
            Path output = folder.output(request.runId(), i);
            folder.write(output, model.outputBytes());
            GoldenCheck golden = GoldenCheck.of(request.goldenInputs().get(i).toString(),
                    output.toString(), model.outputValues(),
                    expected.isEmpty() ? null : expected.get(i));
            result.golden.add(golden);
            log.accept("golden " + i + ": difference " + golden.maxAbsError());
        }
        model.feed(inputs.get(0));
        for (int i = 0; i < expected.size(); i++) {
            GoldenCheck golden = result.golden.get(i);
            if (!golden.within(request.maxAbsError())) {
                throw new RefusedException("golden_expected",
                        request.goldenExpected().get(i).toString(),
                        "the output differs by " + golden.maxAbsError() + ", "
                                + golden.notFinite() + " values are not finite; allowed is "
                                + request.maxAbsError(),
                        "a wrong model is not timed: try another backend, or without precision "
                                + "loss");
            }
        }
    }

    private double once(BenchRequest request, LiteModel model) throws RefusedException {
        try {
            return loop.once(model::run);
        } catch (RuntimeException e) {
            throw new RefusedException("model", request.model().toString(),
                    "the runtime prepared it and cannot run it: " + e.getMessage(),
                    "most likely memory: close other apps, or give a smaller model; "
                            + "of gpu and nnapi it can be the driver: measure on cpu", e);
        }
    }

    private void time(BenchRequest request, LiteModel model, BenchResult result) {
        result.readMemory(phone);
        log.accept("warm-up");
        result.warmupMs = loop.series(model::run, request.warmupRuns(), request.warmupMinMs(),
                request.maxMs());
        result.readMemory(phone);
        log.accept("steady state");
        System.gc();
        result.samplesMs =
                loop.series(model::run, request.runs(), request.minMs(), request.maxMs());
        result.readMemory(phone);
    }

    private static List<byte[]> read(String field, List<Path> paths, int bytes, String contract)
            throws IOException, RefusedException {
        List<byte[]> contents = new ArrayList<>();
        for (Path path : paths) {
            if (Files.size(path) != bytes) {
                throw new RefusedException(field, path.toString(),
                        "it has " + Files.size(path) + " bytes",
                        "the model wants " + bytes + ": " + contract);
            }
            contents.add(Files.readAllBytes(path));
        }
        return contents;
    }

    private static float[] floats(byte[] littleEndian) {
        float[] values = new float[littleEndian.length / Float.BYTES];
        ByteBuffer.wrap(littleEndian).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values);
        return values;
    }

    /** An older answer under this run id must not be taken for the one to come. */
    private void forget(String runId) throws IOException {
        Files.deleteIfExists(folder.result(runId));
    }

    /**
     * Leaves the answer that holds if the process is killed: neither a lack of memory inside the
     * runtime, which aborts, nor Android's low-memory killer can be caught.
     */
    private void expectTheWorst(BenchRequest request, BenchResult result) throws IOException {
        BenchResult worst = new BenchResult();
        worst.runId = result.runId;
        worst.request = result.request;
        worst.app = result.app;
        worst.device = result.device;
        worst.runtimeVersion = result.runtimeVersion;
        worst.startedAtEpochMs = result.startedAtEpochMs;
        worst.fail("model", request.model().toString(), "the app ended in the middle of the run",
                "adb logcat -b crash,main tells why; most likely memory: close other apps, or "
                        + "give a smaller model", null);
        folder.write(folder.pending(request.runId()), bytes(worst.toJson()));
    }

    private boolean save(BenchResult result) {
        Path path = folder.result(result.runId);
        try {
            folder.write(path, bytes(result.toJson()));
            if (result.runId != null) {
                Files.deleteIfExists(folder.pending(result.runId));
            }
        } catch (IOException e) {
            log.accept(path + " cannot be written: " + e);
            return false;
        }
        log.accept("result " + result.runId + " " + (result.failed() ? "error" : "ok") + " " + path);
        return true;
    }

    /** Says the answer in one line, where no file can be. */
    private boolean unsaved(BenchResult result) {
        if (!result.failed()) {
            result.fail("files", null, "the result cannot be saved", "make room on the phone, "
                    + folder.freeMb() + " MB are free", null);
        }
        result.dropStack();
        log.accept("unsaved " + result.runId + " " + result.toJson().replaceAll("\n *", " "));
        return false;
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
