package ai.onnxruntime;

/** Stands for onnxruntime's. */
public class TensorInfo {
    private final long[] shape;

    TensorInfo(long[] shape) {
        this.shape = shape;
    }

    public long[] getShape() {
        return shape;
    }
}
