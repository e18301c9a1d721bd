package stand;

import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.lang.reflect.Array;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.Map;

/** Asks bridge.py, which runs the model with the same runtime's library for Python: a line for each tensor. */
public final class Bridge implements AutoCloseable {
    /** Values one after the other (a primitive array, or String[]), and their shape. */
    public static final class Values {
        public final String type;
        public final long[] shape;
        public final Object flat;

        public Values(String type, long[] shape, Object flat) {
            this.type = type;
            this.shape = shape;
            this.flat = flat;
        }
    }

    private final Process process;
    private final BufferedWriter out;
    private final BufferedReader in;

    public Bridge(String form, byte[] model) {
        try {
            Path path = Files.createTempFile("bridge", ".model");
            path.toFile().deleteOnExit();
            Files.write(path, model);
            process = new ProcessBuilder(
                    System.getProperty("python"), System.getProperty("bridge"), form, path.toString())
                .redirectError(ProcessBuilder.Redirect.INHERIT).start();
            out = new BufferedWriter(new OutputStreamWriter(process.getOutputStream(), StandardCharsets.UTF_8));
            in = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }

    public Map<String, Values> ask(Map<String, Values> given) {
        try {
            out.write(given.size() + "\n");
            for (Map.Entry<String, Values> one : given.entrySet()) {
                out.write(line(one.getKey(), one.getValue()));
            }
            out.flush();
            String count = in.readLine();
            if (count == null) {
                throw new IllegalStateException("the bridge has ended");
            }
            Map<String, Values> found = new LinkedHashMap<>();
            for (int left = Integer.parseInt(count); left > 0; left--) {
                String[] parts = in.readLine().split(" ", -1);
                found.put(plain(parts[0]), values(parts));
            }
            return found;
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }

    private static String line(String name, Values values) {
        StringBuilder shape = new StringBuilder();
        for (long size : values.shape) {
            shape.append(shape.length() > 0 ? "," : "").append(size);
        }
        return code(name.getBytes(StandardCharsets.UTF_8)) + " " + values.type + " " + shape + " " + data(values) + "\n";
    }

    private static String data(Values values) {
        if (values.flat instanceof String[]) {
            StringBuilder all = new StringBuilder();
            for (String one : (String[]) values.flat) {
                all.append(all.length() > 0 ? "," : "").append("=").append(code(one.getBytes(StandardCharsets.UTF_8)));
            }
            return all.toString();
        }
        int count = Array.getLength(values.flat);
        ByteBuffer bytes = ByteBuffer.allocate(count * 8).order(ByteOrder.LITTLE_ENDIAN);
        for (int at = 0; at < count; at++) {
            Object one = Array.get(values.flat, at);
            if (one instanceof Float) {
                bytes.putFloat((Float) one);
            } else if (one instanceof Double) {
                bytes.putDouble((Double) one);
            } else if (one instanceof Long) {
                bytes.putLong((Long) one);
            } else if (one instanceof Integer) {
                bytes.putInt((Integer) one);
            } else if (one instanceof Short) {
                bytes.putShort((Short) one);
            } else if (one instanceof Boolean) {
                bytes.put((byte) ((Boolean) one ? 1 : 0));
            } else {
                bytes.put((Byte) one);
            }
        }
        byte[] all = new byte[bytes.position()];
        bytes.flip();
        bytes.get(all);
        return code(all);
    }

    private static Values values(String[] parts) {
        String[] sizes = parts[2].isEmpty() ? new String[0] : parts[2].split(",");
        long[] shape = new long[sizes.length];
        int count = 1;
        for (int at = 0; at < sizes.length; at++) {
            shape[at] = Long.parseLong(sizes[at]);
            count *= (int) shape[at];
        }
        if (parts[1].equals("text")) {
            String[] texts = parts[3].isEmpty() ? new String[0] : parts[3].split(",");
            for (int at = 0; at < texts.length; at++) {
                texts[at] = plain(texts[at].substring(1));
            }
            return new Values(parts[1], shape, texts);
        }
        ByteBuffer bytes = ByteBuffer.wrap(Base64.getDecoder().decode(parts[3])).order(ByteOrder.LITTLE_ENDIAN);
        Object flat = Array.newInstance(type(parts[1]), count);
        for (int at = 0; at < count; at++) {
            switch (parts[1]) {
                case "float32" -> Array.setFloat(flat, at, bytes.getFloat());
                case "float64" -> Array.setDouble(flat, at, bytes.getDouble());
                case "int64" -> Array.setLong(flat, at, bytes.getLong());
                case "int32" -> Array.setInt(flat, at, bytes.getInt());
                case "int16" -> Array.setShort(flat, at, bytes.getShort());
                case "bool" -> Array.setBoolean(flat, at, bytes.get() != 0);
                default -> Array.setByte(flat, at, bytes.get());
            }
        }
        return new Values(parts[1], shape, flat);
    }

    public static Class<?> type(String name) {
        return switch (name) {
            case "float32" -> float.class;
            case "float64" -> double.class;
            case "int64" -> long.class;
            case "int32" -> int.class;
            case "int16" -> short.class;
            case "bool" -> boolean.class;
            case "text" -> String.class;
            default -> byte.class;
        };
    }

    /** The numpy name of the type of an array's elements. */
    public static String name(Class<?> type) {
        for (String one : new String[] {"float32", "float64", "int64", "int32", "int16", "bool", "text", "int8"}) {
            if (type(one) == type) {
                return one;
            }
        }
        throw new IllegalArgumentException(type.getName());
    }

    private static String code(byte[] bytes) {
        return Base64.getEncoder().encodeToString(bytes);
    }

    private static String plain(String coded) {
        return new String(Base64.getDecoder().decode(coded), StandardCharsets.UTF_8);
    }

    @Override
    public void close() {
        process.destroy();
    }
}
