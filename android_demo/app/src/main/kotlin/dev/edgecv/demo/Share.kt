package dev.edgecv.demo

import android.app.Activity
import android.content.ClipData
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.Canvas
import android.os.Build
import android.os.Handler
import android.os.Looper
import android.view.PixelCopy
import dev.edgecv.core.ModelState
import dev.edgecv.core.reason
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import org.codehaus.mojo.animal_sniffer.IgnoreJRERequirement
import java.io.File
import java.io.IOException

/** Hands results to other apps. */
object Share {
    /** A screenshot of the app with the predictions as text. */
    @IgnoreJRERequirement
    fun screen(activity: MainActivity, state: ScreenState) {
        val view = activity.window.decorView
        val bitmap = Bitmap.createBitmap(maxOf(1, view.width), maxOf(1, view.height), Bitmap.Config.ARGB_8888)
        val text = listOfNotNull(state.models.model, state.models.second).joinToString("\n\n") { text(activity, it) }
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.O) {
            view.draw(Canvas(bitmap)) // without the camera's picture, which only PixelCopy has
            return picture(activity, bitmap, text)
        }
        val done = { result: Int ->
            if (result != PixelCopy.SUCCESS) view.draw(Canvas(bitmap))
            picture(activity, bitmap, text)
        }
        try {
            PixelCopy.request(activity.window, bitmap, done, Handler(Looper.getMainLooper()))
        } catch (_: IllegalArgumentException) { // the window is not drawn yet
            done(PixelCopy.ERROR_SOURCE_NO_DATA)
        }
    }

    /** The result of the benchmark, as the file that `edge-cv report` merges. */
    fun measured(activity: MainActivity, state: ScreenState) {
        val measured = state.models.measured ?: return
        val text = Json.encodeToString(JsonObject.serializer(), measured.result) + "\n"
        val summary = MeasuredText.title(activity, measured) + "\n" + MeasuredText.of(activity, measured)
        send(activity, "measurement.json", "application/json", summary) { it.writeText(text) }
    }

    private fun text(activity: Activity, model: ModelState): String {
        val lines = model.predictions.map { "${it.label}: ${activity.getString(R.string.percent, it.probability * 100)}" }
        return (listOf(model.file, model.runtime.orEmpty()) + lines).joinToString("\n")
    }

    private fun picture(activity: MainActivity, bitmap: Bitmap, text: String) = send(activity, "edge_cv.png", "image/png", text) { file ->
        file.outputStream().use { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }
    }

    private fun send(activity: MainActivity, name: String, type: String, text: String, write: (File) -> Unit) = try {
        write(SharedFiles.file(activity, name))
        val uri = SharedFiles.uri(name)
        val intent = Intent(Intent.ACTION_SEND).setType(type).putExtra(Intent.EXTRA_STREAM, uri).putExtra(Intent.EXTRA_TEXT, text)
            .addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
        intent.clipData = ClipData.newRawUri(name, uri)
        activity.startActivity(Intent.createChooser(intent, activity.getString(R.string.share)))
    } catch (error: IOException) {
        activity.workspace.showProblem(activity.getString(R.string.share_failed, error.reason()))
    }
}
