package dev.edgecv.demo

import android.app.Activity
import android.os.Bundle
import android.util.Log
import android.view.WindowManager
import android.widget.TextView
import dev.edgecv.core.Benchmark
import dev.edgecv.core.BenchmarkRequest
import dev.edgecv.core.InputError
import dev.edgecv.core.reason
import java.io.File
import java.util.concurrent.Executors

/**
 * Measures a model that was pushed by adb:
 *
 *     adb shell am start -W -n dev.edgecv.demo/.BenchmarkActivity --es folder ID --ei runs 50 --ei warmup 10 \
 *         --es threads 1,4 --es delegate xnnpack
 *
 * It reads `model.tflite` and, if it exists, `golden.bin` from the app's folder `files/benchmark/ID`, and writes
 * `measurement.json` there: the measurement, or the reason of the failure. Only adb's shell, the system and apps with the permission
 * DUMP may start it.
 */
class BenchmarkActivity : Activity() {
    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.benchmark)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        if (saved == null) measurements.execute { measure() }
    }

    private fun measure() {
        val folder = folder()
        if (folder == null) {
            show("folder must be 1 to 32 of a-z and 0-9, and exist. Received: ${intent.getStringExtra("folder")}")
            return
        }
        File(folder, Benchmark.RESULT).delete()
        try {
            val request = BenchmarkRequest.parse(
                folder = folder.name,
                runs = intExtra("runs"),
                warmup = intExtra("warmup"),
                threads = intent.getStringExtra("threads"),
                delegate = intent.getStringExtra("delegate"),
            )
            show(Benchmark(TfliteRuntime, AndroidMachine(applicationContext)).measureFolder(folder, request, ::show).toString())
        } catch (error: InputError) {
            show(error.reason())
            fail(folder, error.reason())
        } catch (error: RuntimeException) {
            Log.e(TAG, "measuring failed", error)
            fail(folder, "the app failed: ${error.reason()}")
        } catch (error: OutOfMemoryError) {
            fail(folder, "the device has too little memory: ${error.reason()}")
        }
        runOnUiThread { if (!isDestroyed) window.clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON) }
    }

    private fun fail(folder: File, reason: String) = try {
        Benchmark.write(folder, Benchmark.failure(reason))
    } catch (error: InputError) {
        show(error.reason())
    }

    private fun folder(): File? {
        val name = intent.getStringExtra("folder")?.takeIf { BenchmarkRequest.isFolder(it) } ?: return null
        return Benchmarks.folder(applicationContext, name).takeIf { it.isDirectory }
    }

    private fun intExtra(name: String): Int? = if (intent.hasExtra(name)) intent.getIntExtra(name, -1) else null

    private fun show(text: String) {
        Log.i(TAG, text.take(1000))
        runOnUiThread { findViewById<TextView>(R.id.message)!!.text = text.take(4000) }
    }

    private companion object {
        const val TAG = "edge_cv"

        // one at a time, because parallel benchmarks would disturb each other
        val measurements = Executors.newSingleThreadExecutor()!!
    }
}
