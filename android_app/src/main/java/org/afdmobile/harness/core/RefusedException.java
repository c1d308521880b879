package org.afdmobile.harness.core;

/** A request that cannot be fulfilled: which field of it, what was found there, what helps. */
public final class RefusedException extends Exception {
    private static final long serialVersionUID = 1;

    public final String field;
    public final String value;
    public final String remedy;

    public RefusedException(String field, String value, String message, String remedy) {
        this(field, value, message, remedy, null);
    }

    public RefusedException(
            String field, String value, String message, String remedy, Throwable cause) {
        super(message, cause);
        this.field = field;
        this.value = value;
        this.remedy = remedy;
    }
}
