package ai.onnxruntime;

/** Stands for onnxruntime's. */
public interface OnnxValue extends AutoCloseable {
    Object getValue() throws OrtException;

    @Override
    void close();
}
