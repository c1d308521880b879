package org.tensorflow.lite;

import java.io.IOException;
import java.io.InputStream;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.List;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * The app's native library on this computer, from the class path. In this package, because
 * Robolectric has a class loader of its own for all others, and a library belongs to one loader.
 */
public final class HostRuntime {
    /** Android's C library as src/test/native makes it, and what needs it. */
    private static final List<String> LIBRARIES = List.of("libc.so", "libm.so", "libdl.so",
            "liblog.so", "libtensorflowlite_jni.so");

    /** Held, so that its level stays: it says that it finds no library, before there is one. */
    private static final Logger LOGGER = Logger.getLogger("org.tensorflow.lite");

    private static boolean loaded;

    private HostRuntime() {}

    /** To be called before anything else of TensorFlow Lite. */
    public static synchronized void load() {
        if (loaded) {
            return;
        }
        LOGGER.setLevel(Level.WARNING);
        try {
            for (String name : LIBRARIES) {
                load(HostRuntime.class.getResource("/" + name));
            }
        } catch (IOException e) {
            throw new IllegalStateException("the native library cannot be unpacked", e);
        }
        loaded = true;
    }

    private static void load(URL library) throws IOException {
        if (library.getProtocol().equals("file")) {
            System.load(library.getPath());
            return;
        }
        Path copy = Files.createTempFile("afd-harness", ".so");
        try (InputStream content = library.openStream()) {
            Files.copy(content, copy, StandardCopyOption.REPLACE_EXISTING);
            System.load(copy.toString());
        } finally {
            Files.delete(copy);
        }
    }
}
