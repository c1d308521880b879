package org.afdmobile.harness.core;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The answer to a request, filled in as it becomes known; PROTOCOL.md describes the fields. */
final class BenchResult {
    String runId;
    Map<String, String> request = Map.of();
    Map<String, Object> app;
    Map<String, Object> device;
    String runtimeVersion;
    String modelSha256;
    Delegation delegation;
    final List<GoldenCheck> golden = new ArrayList<>();
    Double initMs;
    Double firstMs;
    List<Double> warmupMs = List.of();
    List<Double> samplesMs = List.of();
    Long pssBeforeKb;
    Long pssKb;
    Long pssPeakKb;
    Long rssPeakKb;
    Phone.Thermal thermalBefore;
    Phone.Thermal thermalAfter;
    boolean sustainedPerformance;
    boolean stayedInFront;
    long startedAtEpochMs;
    Double elapsedMs;
    private Map<String, Object> error;

    /** Makes it an error, of which it keeps what was known until then, but no times. */
    void fail(String field, String value, String message, String remedy, Throwable cause) {
        error = new LinkedHashMap<>();
        error.put("field", field);
        error.put("value", value);
        error.put("message", message);
        error.put("remedy", remedy);
        error.put("stack", cause == null ? null : stack(cause));
        initMs = null;
        firstMs = null;
        warmupMs = List.of();
        samplesMs = List.of();
    }

    /** For a log line, which cannot be long. */
    void dropStack() {
        error.put("stack", null);
    }

    boolean failed() {
        return error != null;
    }

    /** Reads the memory in use; the peak is the largest reading. */
    void readMemory(Phone phone) {
        pssKb = phone.pssKb();
        if (pssKb != null) {
            pssPeakKb = pssPeakKb == null ? pssKb : Long.valueOf(Math.max(pssPeakKb, pssKb));
        }
        rssPeakKb = Phone.rssPeakKb();
    }

    String toJson() {
        Map<String, Object> map = new LinkedHashMap<>();
        map.put("schema_version", BenchRequest.SCHEMA_VERSION);
        map.put("run_id", runId);
        map.put("status", failed() ? "error" : "ok");
        map.put("error", error);
        map.put("request", request);
        map.put("app", app);
        map.put("runtime_version", runtimeVersion);
        map.put("device", device);
        map.put("model_sha256", modelSha256);
        map.put("delegation", delegation == null ? null : delegation.toMap());
        List<Object> checks = new ArrayList<>();
        for (GoldenCheck check : golden) {
            checks.add(check.toMap());
        }
        map.put("golden", checks);
        map.put("init_ms", initMs);
        map.put("first_ms", firstMs);
        map.put("warmup_ms", warmupMs);
        map.put("samples_ms", samplesMs);
        map.put("median_ms", TimingLoop.median(samplesMs));
        Map<String, Object> memory = new LinkedHashMap<>();
        memory.put("pss_before_kb", pssBeforeKb);
        memory.put("pss_kb", pssKb);
        memory.put("pss_peak_kb", pssPeakKb);
        memory.put("rss_peak_kb", rssPeakKb);
        map.put("memory", memory);
        map.put("thermal_before", map(thermalBefore));
        map.put("thermal_after", map(thermalAfter));
        map.put("sustained_performance", sustainedPerformance);
        map.put("stayed_in_front", stayedInFront);
        map.put("started_at_epoch_ms", startedAtEpochMs);
        map.put("elapsed_ms", elapsedMs);
        return Json.write(map);
    }

    private static Map<String, Object> map(Phone.Thermal thermal) {
        if (thermal == null) {
            return null;
        }
        Map<String, Object> map = new LinkedHashMap<>();
        map.put("status", thermal.status());
        map.put("headroom", thermal.headroom());
        return map;
    }

    private static String stack(Throwable cause) {
        StringWriter text = new StringWriter();
        cause.printStackTrace(new PrintWriter(text));
        return text.toString();
    }
}
