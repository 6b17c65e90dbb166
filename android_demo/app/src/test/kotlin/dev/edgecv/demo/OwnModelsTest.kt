package dev.edgecv.demo

import android.app.Activity
import android.content.ClipData
import android.content.Intent
import android.net.Uri
import android.widget.Button
import android.widget.Spinner
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import java.io.ByteArrayInputStream
import java.io.File

/** Models of the user with a sidecar and labels. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class OwnModelsTest : AppTest() {
    private val folder get() = File(app.filesDir, "models")
    private val model = Shipped.file(Shipped.model("float32")).readBytes()
    private val sidecar = Shipped.sidecar(Shipped.model("float32"))
    private val names = (0 until 1000).joinToString("\n") { "name $it" }

    private fun kept() = folder.list().orEmpty().toSet()

    /** Chooses several files in the system's file picker. */
    private fun Activity.pickAll(vararg files: Pair<String, ByteArray>) {
        val uris = files.map { (name, content) ->
            Uri.parse("content://test/$name").also { shadowOf(app.contentResolver).registerInputStreamSupplier(it) { ByteArrayInputStream(content) } }
        }
        view<Button>(R.id.open_button).performClick()
        val request = shadowOf(this).nextStartedActivityForResult
        assertTrue(request.intent.getBooleanExtra(Intent.EXTRA_ALLOW_MULTIPLE, false))
        val clip = ClipData.newRawUri("", uris.first()).apply { uris.drop(1).forEach { addItem(ClipData.Item(it)) } }
        shadowOf(this).receiveResult(request.intent, Activity.RESULT_OK, Intent().apply { clipData = clip })
    }

    @Test
    fun `a model with its sidecar and labels is opened, renamed and deleted with them`() {
        val activity = start().get()
        val renamed = sidecar.replace("\"efficientnet_lite0\"", "\"my network\"")
        assertFalse(renamed == sidecar)
        activity.pickAll("labels.txt" to names.toByteArray(), "net.tflite" to model, "net.JSON" to renamed.toByteArray())
        until("it is open", activity) { activity.workspace.state.models.model?.record?.name == "my network" && "XNNPACK" in activity.text(R.id.runtime) }
        assertEquals("my network", activity.view<Spinner>(R.id.model).selectedItem)
        assertEquals(setOf("net.tflite", "net.json", "net.txt"), kept())
        assertEquals(List(1000) { "name $it" }, activity.workspace.state.models.model!!.record!!.labels)
        activity.workspace.rename(activity.workspace.state.chosen!!, "other")
        until("it is renamed", activity) { activity.workspace.state.chosen?.source?.file == "other.tflite" && "XNNPACK" in activity.text(R.id.runtime) }
        assertEquals(setOf("other.tflite", "other.json", "other.txt"), kept())
        assertEquals("name 7", activity.workspace.state.models.model!!.record!!.labels!![7])
        activity.openSettings()
        activity.click(R.id.delete_button)
        until("all its files are gone", activity) { kept().isEmpty() }
    }

    @Test
    fun `labels that come alone are for the chosen model, if it is the user's own`() {
        val activity = start().get()
        activity.pickAll("labels.txt" to names.toByteArray())
        until("a model is asked for", activity) { "need a model that you have opened" in activity.text(R.id.message) }
        activity.pickAll("net.tflite" to model)
        until("it is open", activity) { activity.workspace.state.models.model?.record?.scheme == "float32" }
        activity.pickAll("labels.txt" to names.toByteArray())
        until("the labels are used", activity) { activity.workspace.state.models.model?.record?.labels?.get(3) == "name 3" }
        assertEquals(setOf("net.tflite", "net.txt"), kept())
        activity.pickAll("labels.txt" to "one\ntwo".toByteArray())
        until("their count is checked", activity) { "1000 outputs, but 2 labels" in activity.text(R.id.message) }
        activity.pickAll("labels.txt" to names.toByteArray())
        until("valid labels replace them", activity) { activity.workspace.state.models.model?.record?.labels?.get(3) == "name 3" }
    }

    @Test
    fun `files that do not belong together are refused, and nothing is kept`() {
        val activity = start().get()
        val other = Shipped.sidecar(Shipped.model("int8")).toByteArray()
        for ((files, words) in listOf(
            listOf("net.tflite" to model, "net.json" to other) to "belongs to another file",
            listOf("net.tflite" to model, "net.json" to "{".toByteArray()) to "not valid JSON",
            listOf("net.tflite" to model, "net.txt" to "a\n\nb".toByteArray()) to "none in line 2",
            listOf("net.tflite" to model, "net.txt" to ByteArray(10_000_001)) to "larger than 10 MB",
            listOf("a.tflite" to model, "b.tflite" to model) to "choose one .tflite file at a time. Received: 2",
        )) {
            activity.pickAll(*files.toTypedArray())
            until("it is refused: $words", activity) { words in activity.text(R.id.message) }
            assertEquals(emptySet<String>(), kept())
        }
        assertEquals("int8", activity.workspace.state.models.model!!.record!!.scheme)
    }
}
