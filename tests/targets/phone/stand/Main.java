package stand;

/** Runs the instrumented test of a package, with the assets of a folder. */
public final class Main {
    public static void main(String[] words) throws Exception {
        System.setProperty("assets", words[1]);
        Class<?> test = Class.forName(words[0]);
        test.getMethod("goldenRows").invoke(test.getDeclaredConstructor().newInstance());
        System.out.println("right");
    }
}
