package android.content;

import android.content.res.AssetManager;

/** Stands for Android's: assets are files of a folder. */
public class Context {
    private final AssetManager assets;

    public Context(String folder) {
        assets = new AssetManager(folder);
    }

    public AssetManager getAssets() {
        return assets;
    }
}
