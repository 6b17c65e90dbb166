package dev.edgecv.demo

import android.app.Activity
import android.content.ContentProvider
import android.content.ContentValues
import android.content.Intent
import android.database.Cursor
import android.database.MatrixCursor
import android.net.Uri
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import java.io.ByteArrayInputStream
import java.io.File
import java.util.concurrent.CountDownLatch

/** The accuracy on a folder of photos, which a provider of documents holds. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], qualifiers = "w411dp-h891dp-xhdpi")
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class AccuracyRunTest : AppTest() {
    @Before
    fun folder() {
        Robolectric.setupContentProvider(LabelledPhotos::class.java, LabelledPhotos.AUTHORITY)
        LabelledPhotos.folders = emptyMap()
    }

    @Test
    fun `the accuracy on a folder is what Python's predictions give, is shared, and stays until it is closed`() {
        val activity = start().get()
        LabelledPhotos.folders = photosOfClasses()
        activity.pickFolder()
        until("it is measured", activity) { activity.isShown(R.id.measured) }
        val written = Json.parseToJsonElement(File(app.filesDir, "benchmark/accuracy/measurement.json").readText()).jsonObject
        val accuracy = written.getValue("accuracy").jsonObject
        fun count(name: String) = accuracy.getValue(name).jsonPrimitive.int
        assertEquals(listOf(4, 3, 1), listOf("images", "top1", "unread").map { count(it) })
        assertEquals(listOf("none of them"), accuracy.getValue("unknown").jsonArray.map { it.jsonPrimitive.content })
        assertEquals("Accuracy of efficientnet_lite0_int8.tflite", activity.text(R.id.measured_title))
        val shown = activity.text(R.id.measured_text)
        assertTrue(shown, shown.startsWith("75.0 % of 4 photos (95 % interval: 30.1 to 95.4 %)"))
        assertTrue(shown, "not readable: 1 (The photo cannot be read" in shown && "folders of no class: none of them" in shown)
        activity.click(R.id.measured_share)
        assertEquals(Intent.ACTION_CHOOSER, shadowOf(activity).nextStartedActivity.action)
        assertEquals(written, Json.parseToJsonElement(SharedFiles.file(app, "measurement.json").readText()).jsonObject)
        // build.py reads it with Python
        File(System.getProperty("edgecv.vectors"), "../measurements/accuracy.json").apply { parentFile!!.mkdirs() }.writeText(written.toString())
        activity.click(R.id.measured_close)
        until("it is closed") { !activity.isShown(R.id.measured) }
    }

    @Test
    fun `progress is shown, and a stopped run leaves no result`() {
        val activity = start().get()
        val begun = CountDownLatch(1)
        val release = CountDownLatch(1)
        val content = png(Shipped.photos[0])
        LabelledPhotos.folders = mapOf(label(0) to List(5) { "$it.png" to { if (it == 2) { begun.countDown(); release.await() }; content } }.toMap())
        activity.pickFolder()
        until("two photos are done", activity) { activity.text(R.id.message) == "Classifying labelled photos: 2 of 5" }
        begun.await()
        assertEquals("Stop", activity.text(R.id.benchmark_button))
        activity.click(R.id.benchmark_button)
        release.countDown()
        until("it has stopped", activity) { activity.text(R.id.benchmark_button) == "Benchmark" }
        assertFalse(activity.isShown(R.id.measured))
        assertFalse(activity.isShown(R.id.message))
        assertFalse(File(app.filesDir, "benchmark/accuracy/measurement.json").exists())
        assertEquals("efficientnet_lite0_int8.tflite", activity.workspace.state.models.model!!.file)
    }

    @Test
    fun `a folder that cannot be listed and one without classes are messages`() {
        val activity = start().get()
        LabelledPhotos.folders = mapOf("refused" to emptyMap())
        activity.pickFolder()
        until("it is shown", activity) { activity.text(R.id.message) == "The folder cannot be read: the volume is gone" }
        activity.workspace.showProblem(null)
        LabelledPhotos.folders = mapOf("no such class" to mapOf("a.png" to { png(Shipped.photos[0]) }))
        activity.pickFolder()
        until("it is the result", activity) { activity.isShown(R.id.measured) }
        assertTrue(activity.text(R.id.measured_text), "Subfolders must have the names of classes" in activity.text(R.id.measured_text))
        assertNull(activity.workspace.state.models.error)
        until("the model is open again", activity) { "XNNPACK" in activity.text(R.id.runtime) }
    }

    private fun Activity.pickFolder() {
        openSettings()
        click(R.id.accuracy_button)
        val request = shadowOf(this).nextStartedActivityForResult
        assertEquals(Intent.ACTION_OPEN_DOCUMENT_TREE, request.intent.action)
        shadowOf(this).receiveResult(request.intent, Activity.RESULT_OK, Intent().setData(LabelledPhotos.TREE))
    }

    private fun label(photo: Int): String {
        val model = Shipped.model("int8")
        val labels = Json.parseToJsonElement(Shipped.sidecar(model)).jsonObject.getValue("labels").jsonArray
        return labels[Shipped.predictions(model)[photo].getValue("top").jsonArray.first().jsonPrimitive.int].jsonPrimitive.content
    }

    /** Three photos in the folder of the class that Python predicts, one in another, one broken, a text, and a folder of no class. */
    private fun photosOfClasses(): Map<String, Map<String, () -> ByteArray>> {
        val folders = mutableMapOf<String, MutableMap<String, () -> ByteArray>>()
        fun add(folder: String, name: String, content: () -> ByteArray) = folders.getOrPut(folder) { mutableMapOf() }.put(name, content)
        for (n in 0 until 3) add(label(n).uppercase().replace(' ', '_'), "$n.png") { png(Shipped.photos[n]) }
        val other = (3..32).first { label(it) != label(0) }
        add(label(0).uppercase().replace(' ', '_'), "other.png") { png(Shipped.photos[other]) }
        add(label(0).uppercase().replace(' ', '_'), "broken.png") { "no photo".toByteArray() }
        add(label(0).uppercase().replace(' ', '_'), "notes.txt") { ByteArray(0) }
        add("none of them", "a.png") { png(Shipped.photos[0]) }
        return folders
    }

    /** A provider of documents with one folder, its subfolders and their files. */
    class LabelledPhotos : ContentProvider() {
        override fun onCreate() = true

        override fun query(uri: Uri, columns: Array<String>?, selection: String?, arguments: Array<String>?, order: String?): Cursor {
            if ("refused" in folders) throw IllegalStateException("the volume is gone")
            val rows = MatrixCursor(columns)
            val folder = DocumentsContract.getDocumentId(uri)
            if (folder == ROOT) {
                rows.addRow(arrayOf("top.png", "top.png", "image/png")) // belongs to no class
                for (name in folders.keys) rows.addRow(arrayOf(name, name, Document.MIME_TYPE_DIR))
            }
            for ((name, content) in folders[folder].orEmpty()) {
                val id = "$folder/$name"
                rows.addRow(arrayOf(id, name, if (name.endsWith(".png")) "image/png" else "text/plain"))
                shadowOf(context!!.contentResolver).registerInputStreamSupplier(DocumentsContract.buildDocumentUriUsingTree(TREE, id)) {
                    ByteArrayInputStream(content())
                }
            }
            return rows
        }

        override fun getType(uri: Uri): String? = null

        override fun insert(uri: Uri, values: ContentValues?): Uri? = null

        override fun delete(uri: Uri, s: String?, a: Array<String>?) = 0

        override fun update(uri: Uri, v: ContentValues?, s: String?, a: Array<String>?) = 0

        companion object {
            const val AUTHORITY = "photos"
            private const val ROOT = "root"
            val TREE: Uri = DocumentsContract.buildTreeDocumentUri(AUTHORITY, ROOT)

            /** The content of each file, by folder and name. */
            var folders: Map<String, Map<String, () -> ByteArray>> = emptyMap()
        }
    }
}
