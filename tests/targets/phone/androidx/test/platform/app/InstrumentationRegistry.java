package androidx.test.platform.app;

import android.content.Context;

/** Stands for androidx.test's: the app's assets are in the folder that the property `assets` names. */
public final class InstrumentationRegistry {
    public static final class Instrumentation {
        public Context getTargetContext() {
            return new Context(System.getProperty("assets"));
        }
    }

    public static Instrumentation getInstrumentation() {
        return new Instrumentation();
    }
}
