package org.junit;

import java.util.Arrays;

/** Stands for JUnit's. */
public final class Assert {
    public static void assertArrayEquals(Object[] expected, Object[] actual) {
        check(Arrays.equals(expected, actual), Arrays.toString(expected), Arrays.toString(actual));
    }

    public static void assertArrayEquals(long[] expected, long[] actual) {
        check(Arrays.equals(expected, actual), Arrays.toString(expected), Arrays.toString(actual));
    }

    public static void assertArrayEquals(short[] expected, short[] actual) {
        check(Arrays.equals(expected, actual), Arrays.toString(expected), Arrays.toString(actual));
    }

    public static void assertArrayEquals(int[] expected, int[] actual) {
        check(Arrays.equals(expected, actual), Arrays.toString(expected), Arrays.toString(actual));
    }

    public static void assertArrayEquals(boolean[] expected, boolean[] actual) {
        check(Arrays.equals(expected, actual), Arrays.toString(expected), Arrays.toString(actual));
    }

    public static void assertArrayEquals(byte[] expected, byte[] actual) {
        check(Arrays.equals(expected, actual), Arrays.toString(expected), Arrays.toString(actual));
    }

    public static void assertArrayEquals(float[] expected, float[] actual, float delta) {
        boolean same = expected.length == actual.length;
        for (int at = 0; same && at < expected.length; at++) {
            same = Float.compare(expected[at], actual[at]) == 0 || Math.abs(expected[at] - actual[at]) <= delta;
        }
        check(same, Arrays.toString(expected), Arrays.toString(actual));
    }

    public static void assertArrayEquals(double[] expected, double[] actual, double delta) {
        boolean same = expected.length == actual.length;
        for (int at = 0; same && at < expected.length; at++) {
            same = Double.compare(expected[at], actual[at]) == 0 || Math.abs(expected[at] - actual[at]) <= delta;
        }
        check(same, Arrays.toString(expected), Arrays.toString(actual));
    }

    private static void check(boolean same, String expected, String actual) {
        if (!same) {
            throw new AssertionError("expected " + expected + ", got " + actual);
        }
    }
}
