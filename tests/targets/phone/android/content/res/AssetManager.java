package android.content.res;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;

/** Stands for Android's: an asset is a file, which is never compressed. */
public final class AssetManager {
    private final String folder;

    public AssetManager(String folder) {
        this.folder = folder;
    }

    public InputStream open(String name) throws IOException {
        return new FileInputStream(new File(folder, name));
    }

    public AssetFileDescriptor openFd(String name) throws IOException {
        return new AssetFileDescriptor(new FileInputStream(new File(folder, name)));
    }
}
