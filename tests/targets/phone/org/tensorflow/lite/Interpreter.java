package org.tensorflow.lite;

import java.lang.reflect.Array;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import stand.Bridge;

/** Stands for LiteRT 1.4's: the methods that are used, with its signatures, over arrays of arrays. */
public final class Interpreter implements AutoCloseable {
    public static class Options {}

    private final Bridge bridge;

    public Interpreter(ByteBuffer model, Options options) {
        byte[] content = new byte[model.remaining()];
        model.get(content);
        bridge = new Bridge("tflite", content);
    }

    public void runSignature(Map<String, Object> inputs, Map<String, Object> outputs, String signatureKey) {
        if (!signatureKey.equals("serving_default")) {
            throw new IllegalArgumentException(signatureKey);
        }
        Map<String, Bridge.Values> given = new LinkedHashMap<>();
        for (Map.Entry<String, Object> one : inputs.entrySet()) {
            long[] shape = shape(one.getValue());
            List<Object> all = new ArrayList<>();
            collect(one.getValue(), all);
            Object flat = Array.newInstance(leaf(one.getValue()), all.size());
            for (int at = 0; at < all.size(); at++) {
                Array.set(flat, at, all.get(at));
            }
            given.put(one.getKey(), new Bridge.Values(Bridge.name(leaf(one.getValue())), shape, flat));
        }
        Map<String, Bridge.Values> found = bridge.ask(given);
        for (Map.Entry<String, Object> one : outputs.entrySet()) {
            Bridge.Values values = found.get(one.getKey());
            if (!java.util.Arrays.equals(values.shape, shape(one.getValue()))
                    || Bridge.type(values.type) != leaf(one.getValue())) {
                throw new IllegalArgumentException("cannot copy from " + one.getKey() + " to another shape or type");
            }
            fill(one.getValue(), values.flat, new int[1]);
        }
    }

    private static Class<?> leaf(Object array) {
        Class<?> type = array.getClass();
        while (type.isArray()) {
            type = type.getComponentType();
        }
        return type;
    }

    private static long[] shape(Object array) {
        List<Long> sizes = new ArrayList<>();
        for (Object part = array; part != null && part.getClass().isArray(); ) {
            sizes.add((long) Array.getLength(part));
            part = Array.getLength(part) > 0 && part.getClass().getComponentType().isArray() ? Array.get(part, 0) : null;
        }
        return sizes.stream().mapToLong(Long::longValue).toArray();
    }

    private static void collect(Object part, List<Object> into) {
        for (int at = 0; at < Array.getLength(part); at++) {
            Object one = Array.get(part, at);
            if (part.getClass().getComponentType().isArray()) {
                collect(one, into);
            } else {
                into.add(one);
            }
        }
    }

    private static void fill(Object part, Object flat, int[] at) {
        for (int place = 0; place < Array.getLength(part); place++) {
            if (part.getClass().getComponentType().isArray()) {
                fill(Array.get(part, place), flat, at);
            } else {
                Array.set(part, place, Array.get(flat, at[0]++));
            }
        }
    }

    @Override
    public void close() {
        bridge.close();
    }
}
