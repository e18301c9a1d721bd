package ai.onnxruntime;

/** Stands for onnxruntime's. */
public abstract class OnnxTensorLike implements OnnxValue {
    public abstract TensorInfo getInfo();
}
