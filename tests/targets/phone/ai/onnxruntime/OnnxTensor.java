package ai.onnxruntime;

import java.lang.reflect.Array;
import java.nio.ByteBuffer;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.nio.ShortBuffer;
import stand.Bridge;

/** Stands for onnxruntime's: the methods that are used, with its signatures. */
public class OnnxTensor extends OnnxTensorLike {
    final Bridge.Values values;

    OnnxTensor(Bridge.Values values) {
        this.values = values;
    }

    private static OnnxTensor made(String type, long[] shape, Object flat) throws OrtException {
        long count = 1;
        for (long size : shape) {
            count *= size;
        }
        if (count != Array.getLength(flat)) {
            throw new OrtException("Shape " + java.util.Arrays.toString(shape) + " does not fit");
        }
        return new OnnxTensor(new Bridge.Values(type, shape, flat));
    }

    public static OnnxTensor createTensor(OrtEnvironment env, String[] data, long[] shape) throws OrtException {
        return made("text", shape, data);
    }

    public static OnnxTensor createTensor(OrtEnvironment env, ByteBuffer data, long[] shape) throws OrtException {
        return createTensor(env, data, shape, OnnxJavaType.INT8);
    }

    public static OnnxTensor createTensor(OrtEnvironment env, ByteBuffer data, long[] shape, OnnxJavaType type)
            throws OrtException {
        byte[] all = new byte[data.remaining()];
        data.get(all);
        return made(type == OnnxJavaType.BOOL ? "bool" : type == OnnxJavaType.UINT8 ? "uint8" : "int8", shape, all);
    }

    public static OnnxTensor createTensor(OrtEnvironment env, FloatBuffer data, long[] shape) throws OrtException {
        float[] all = new float[data.remaining()];
        data.get(all);
        return made("float32", shape, all);
    }

    public static OnnxTensor createTensor(OrtEnvironment env, DoubleBuffer data, long[] shape) throws OrtException {
        double[] all = new double[data.remaining()];
        data.get(all);
        return made("float64", shape, all);
    }

    public static OnnxTensor createTensor(OrtEnvironment env, IntBuffer data, long[] shape) throws OrtException {
        int[] all = new int[data.remaining()];
        data.get(all);
        return made("int32", shape, all);
    }

    public static OnnxTensor createTensor(OrtEnvironment env, LongBuffer data, long[] shape) throws OrtException {
        long[] all = new long[data.remaining()];
        data.get(all);
        return made("int64", shape, all);
    }

    public static OnnxTensor createTensor(OrtEnvironment env, ShortBuffer data, long[] shape) throws OrtException {
        short[] all = new short[data.remaining()];
        data.get(all);
        return made("int16", shape, all);
    }

    public FloatBuffer getFloatBuffer() {
        return FloatBuffer.wrap((float[]) values.flat);
    }

    public DoubleBuffer getDoubleBuffer() {
        return DoubleBuffer.wrap((double[]) values.flat);
    }

    public IntBuffer getIntBuffer() {
        return IntBuffer.wrap((int[]) values.flat);
    }

    public LongBuffer getLongBuffer() {
        return LongBuffer.wrap((long[]) values.flat);
    }

    public ShortBuffer getShortBuffer() {
        return ShortBuffer.wrap((short[]) values.flat);
    }

    public ByteBuffer getByteBuffer() {
        if (values.flat instanceof boolean[] all) {
            ByteBuffer found = ByteBuffer.allocate(all.length);
            for (boolean one : all) {
                found.put((byte) (one ? 1 : 0));
            }
            return found.rewind();
        }
        return ByteBuffer.wrap((byte[]) values.flat);
    }

    @Override
    public TensorInfo getInfo() {
        return new TensorInfo(values.shape);
    }

    @Override
    public Object getValue() throws OrtException {
        int[] sizes = new int[values.shape.length];
        for (int at = 0; at < sizes.length; at++) {
            sizes[at] = (int) values.shape[at];
        }
        Object found = Array.newInstance(Bridge.type(values.type), sizes);
        fill(found, new int[1]);
        return found;
    }

    private void fill(Object part, int[] at) {
        for (int place = 0; place < Array.getLength(part); place++) {
            if (part.getClass().getComponentType().isArray()) {
                fill(Array.get(part, place), at);
            } else {
                Array.set(part, place, Array.get(values.flat, at[0]++));
            }
        }
    }

    @Override
    public void close() {}
}
