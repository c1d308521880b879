package org.afdmobile.harness.core;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;

/** Where answers lie, in the app's external files folder: each file whole, or not there. */
final class ResultFolder {
    private final Path files;

    ResultFolder(Path files) {
        this.files = files;
    }

    /** The answer; to a request without a proper run id, a file that the next one replaces. */
    Path result(String runId) {
        return runId == null
                ? files.resolve("refused.json") : files.resolve("results").resolve(runId + ".json");
    }

    /** The answer that holds if the process does not live to give another. */
    Path pending(String runId) {
        return files.resolve("pending").resolve(runId + ".json");
    }

    /** What the model made of a golden input. */
    Path output(String runId, int number) {
        return files.resolve("outputs").resolve(runId).resolve(number + ".bin");
    }

    /** Writes a file under another name, and gives it its own once it is on the disk. */
    void write(Path target, byte[] content) throws IOException {
        Files.createDirectories(target.getParent());
        Path temporary = target.resolveSibling(target.getFileName() + ".tmp");
        try (FileChannel file = FileChannel.open(temporary, StandardOpenOption.CREATE,
                StandardOpenOption.TRUNCATE_EXISTING, StandardOpenOption.WRITE)) {
            ByteBuffer left = ByteBuffer.wrap(content);
            while (left.hasRemaining()) {
                file.write(left);
            }
            file.force(true);
            Files.move(temporary, target, StandardCopyOption.ATOMIC_MOVE);
        } finally {
            Files.deleteIfExists(temporary);
        }
    }

    /** Free space there, in MB. */
    long freeMb() {
        return files.toFile().getUsableSpace() / 1_000_000;
    }
}
