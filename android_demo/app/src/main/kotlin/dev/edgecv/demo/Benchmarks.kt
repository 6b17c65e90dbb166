package dev.edgecv.demo

import android.content.Context
import java.io.File

/** Where benchmarks are kept: in the app's own files, which only the app and adb's `run-as` can access. */
object Benchmarks {
    fun folder(context: Context, name: String) = File(File(context.filesDir, "benchmark"), name)
}
