package ai.onnxruntime;

/** Stands for onnxruntime's. */
public final class OrtEnvironment implements AutoCloseable {
    public static synchronized OrtEnvironment getEnvironment() {
        return new OrtEnvironment();
    }

    public OrtSession createSession(byte[] model) throws OrtException {
        return new OrtSession(model);
    }

    @Override
    public void close() {}
}
