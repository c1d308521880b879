package org.afdmobile.harness.core;

import java.util.LinkedHashMap;
import java.util.Map;

import org.afdmobile.harness.core.BenchRequest.Backend;

/**
 * Which delegate was asked for, and what it took.
 *
 * @param graphNodes operations of the file
 * @param planNodes what is executed: the operations that no delegate took, and delegates' kernels
 */
record Delegation(Backend asked, int graphNodes, int planNodes) {
    private static final Map<Backend, String> DELEGATES = Map.of(
            Backend.CPU, "TfLiteXNNPackDelegate",
            Backend.GPU, "TfLiteGpuDelegateV2",
            Backend.NNAPI, "TfLiteNnapiDelegate");

    /** Null where it cannot be told: a plan of several nodes may hold any number of kernels. */
    Integer delegatedNodes() {
        if (graphNodes > 1 && planNodes == 1) {
            return graphNodes;
        }
        return graphNodes > 1 && planNodes == graphNodes ? 0 : null;
    }

    /** An accelerator that took nothing leaves all to the CPU. */
    Backend actual() {
        return Integer.valueOf(0).equals(delegatedNodes()) ? Backend.CPU : asked;
    }

    Map<String, Object> toMap() {
        Map<String, Object> map = new LinkedHashMap<>();
        map.put("asked", asked.text());
        map.put("actual", actual().text());
        map.put("delegate", Integer.valueOf(0).equals(delegatedNodes())
                ? null : DELEGATES.get(asked));
        map.put("graph_nodes", graphNodes);
        map.put("plan_nodes", planNodes);
        map.put("delegated_nodes", delegatedNodes());
        return map;
    }
}
