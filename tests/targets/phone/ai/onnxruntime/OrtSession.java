package ai.onnxruntime;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import stand.Bridge;

/** Stands for onnxruntime's: the methods that are used, with its signatures. */
public class OrtSession implements AutoCloseable {
    private final Bridge bridge;

    OrtSession(byte[] model) {
        bridge = new Bridge("onnx", model);
    }

    public Result run(Map<String, ? extends OnnxTensorLike> inputs) throws OrtException {
        Map<String, Bridge.Values> given = new LinkedHashMap<>();
        inputs.forEach((name, one) -> given.put(name, ((OnnxTensor) one).values));
        return new Result(bridge.ask(given));
    }

    @Override
    public void close() throws OrtException {
        bridge.close();
    }

    /** Stands for onnxruntime's. */
    public static class Result implements AutoCloseable {
        private final Map<String, Bridge.Values> found;

        Result(Map<String, Bridge.Values> found) {
            this.found = found;
        }

        public Optional<OnnxValue> get(String key) {
            return Optional.ofNullable(found.get(key)).map(OnnxTensor::new);
        }

        @Override
        public void close() {}
    }
}
