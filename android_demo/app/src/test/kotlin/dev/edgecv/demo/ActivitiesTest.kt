package dev.edgecv.demo

import android.Manifest
import android.app.Activity
import android.content.ComponentName
import android.content.ContentProvider
import android.content.ContentValues
import android.content.Intent
import android.content.pm.PackageManager
import android.database.Cursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.view.View
import android.widget.Button
import android.widget.ImageView
import android.widget.SeekBar
import android.widget.Spinner
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.double
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import java.io.File
import java.io.FileNotFoundException
import java.io.RandomAccessFile
import kotlin.math.abs

/** The app's activities, on the oldest supported Android and on a current one. */
abstract class ActivitiesTest : AppTest() {
    @Test
    fun `the model in the assets is opened, and the settings are shown`() {
        val activity = start().get()
        assertEquals("efficientnet_lite0", activity.view<Spinner>(R.id.model).selectedItem)
        assertEquals("int8", activity.view<Spinner>(R.id.precision).selectedItem)
        assertTrue(activity.text(R.id.runtime).startsWith("tensorflow-lite 2."))
    }

    @Test
    fun `a device without a camera shows a message`() {
        assertEquals(app.getString(R.string.camera_missing), start().get().text(R.id.message))
    }

    @Test
    fun `a denied camera permission is requested once and then shown as a message`() {
        addCamera()
        shadowOf(app).denyPermissions(Manifest.permission.CAMERA)
        val controller = start()
        val activity = controller.get()
        assertEquals(listOf(Manifest.permission.CAMERA), shadowOf(activity).lastRequestedPermission.requestedPermissions.toList())
        val refused = intArrayOf(PackageManager.PERMISSION_DENIED)
        activity.onRequestPermissionsResult(shadowOf(activity).lastRequestedPermission.requestCode, arrayOf(Manifest.permission.CAMERA), refused)
        assertEquals(app.getString(R.string.camera_refused), activity.text(R.id.message))
        controller.recreate()
        assertEquals(app.getString(R.string.camera_refused), controller.get().text(R.id.message))
        controller.get().click(R.id.camera_button) // the button requests it again
        assertEquals(listOf(Manifest.permission.CAMERA), shadowOf(controller.get()).lastRequestedPermission?.requestedPermissions?.toList())
    }

    @Test
    fun `a missing delegate is replaced, and the screen shows by which one and why`() {
        val activity = start().get()
        activity.choose(R.id.delegate, "GPU")
        until("the fall-back is shown") { "instead of GPU" in activity.text(R.id.runtime) }
        assertTrue(activity.text(R.id.runtime), "XNNPACK instead of GPU: this device has no GPU delegate" in activity.text(R.id.runtime))
        activity.choose(R.id.delegate, "CPU")
        until("the CPU runs") { activity.text(R.id.runtime).startsWith("tensorflow-lite") && "CPU, threads: 1" in activity.text(R.id.runtime) }
    }

    @Test
    fun `a broken model shows a message, and a valid one opens again`() {
        val activity = start().get()
        activity.pick(R.id.open_button, "broken.tflite", "no model".toByteArray())
        until("the model is rejected") { "not a TFLite file" in activity.text(R.id.message) }
        activity.choose(R.id.model, "efficientnet_lite0")
        until("the valid model is open") { "XNNPACK" in activity.text(R.id.runtime) }
    }

    @Test
    fun `a model that the user opens is kept next to the other schemes of its network`() {
        val activity = start().get()
        activity.pick(R.id.open_button, "mine.tflite", Shipped.file(Shipped.model("float32")).readBytes())
        until("float32 is open") { activity.view<Spinner>(R.id.precision).selectedItem == "float32" && "XNNPACK" in activity.text(R.id.runtime) }
        assertTrue(File(app.filesDir, "models/mine.tflite").isFile)
        activity.choose(R.id.precision, "int8")
        until("int8 is open") { activity.view<Spinner>(R.id.precision).selectedItem == "int8" && "XNNPACK" in activity.text(R.id.runtime) }
    }

    private fun measured(activity: MainActivity) {
        activity.click(R.id.benchmark_button)
        until("it is measured", activity) { activity.isShown(R.id.measured) && "XNNPACK" in activity.text(R.id.runtime) }
    }

    @Test
    fun `the result of a benchmark stays on the screen until it is closed, and can be shared`() {
        val controller = start()
        val activity = controller.get()
        measured(activity)
        val written = Json.parseToJsonElement(File(app.filesDir, "benchmark/app/measurement.json").readText()).jsonObject
        assertEquals(50, written.getValue("latency").jsonArray.single().jsonObject.getValue("samples_ms").jsonArray.size)
        assertEquals("Benchmark of efficientnet_lite0_int8.tflite", activity.text(R.id.measured_title))
        assertTrue(activity.text(R.id.measured_text), "ms median" in activity.text(R.id.measured_text))
        activity.choose(R.id.delegate, "CPU")
        until("the CPU runs", activity) { "CPU, threads: 1" in activity.text(R.id.runtime) }
        activity.click(R.id.measured_share)
        val shared = shadowOf(activity).nextStartedActivity.extra<Intent>(Intent.EXTRA_INTENT)
        assertEquals(Intent.ACTION_SEND, shared.action)
        val provider = Robolectric.setupContentProvider(SharedFiles::class.java, "dev.edgecv.demo.shared")
        val uri = shared.extra<Uri>(Intent.EXTRA_STREAM)
        assertEquals("application/json", provider.getType(uri))
        val text = ParcelFileDescriptor.AutoCloseInputStream(provider.openFile(uri, "r")).use { it.readBytes().decodeToString() }
        assertEquals(written, Json.parseToJsonElement(text).jsonObject)
        assertThrows(FileNotFoundException::class.java) { provider.openFile(uri, "rw") }
        assertThrows(FileNotFoundException::class.java) { provider.openFile(Uri.parse("content://dev.edgecv.demo.shared/..%2Fx"), "r") }
        controller.recreate()
        assertTrue(controller.get().isShown(R.id.measured))
        controller.get().click(R.id.measured_close)
        until("it is closed") { !controller.get().isShown(R.id.measured) }
    }

    @Suppress("DEPRECATION") // the replacement needs Android 13
    private inline fun <reified T> Intent.extra(name: String) = extras!!.get(name) as T

    @Test
    fun `closing the app during a benchmark does not wait for it`() {
        val controller = start()
        controller.get().click(R.id.benchmark_button)
        until("it measures") { controller.get().text(R.id.benchmark_button) == app.getString(R.string.stop) }
        controller.pause().stop()
        val start = System.nanoTime()
        controller.destroy()
        assertTrue("${(System.nanoTime() - start) / 1e6} ms", System.nanoTime() - start < 300_000_000)
    }

    @Test
    fun `a large file and a broken one hide no other model, and can be deleted`() {
        val folder = File(app.filesDir, "models").apply { mkdirs() }
        RandomAccessFile(File(folder, "large.tflite"), "rw").use {
            it.write(byteArrayOf(12, 0, 0, 0, 84, 70, 76, 51, 4, 0, 4, 0, 4, 0, 0, 0))
            it.setLength(150_000_000)
        }
        File(folder, "broken.tflite").writeText("none")
        val controller = Robolectric.buildActivity(MainActivity::class.java).setup()
        val activity = controller.get()
        until("the models are listed", activity) { activity.items(R.id.model).size == 3 }
        assertEquals(setOf("large", "broken.tflite", "efficientnet_lite0"), activity.items(R.id.model).toSet())
        for (name in listOf("large", "broken.tflite")) {
            if (activity.workspace.state.chosen?.name != name) activity.choose(R.id.model, name)
            until("it is rejected", activity) { activity.isShown(R.id.message) && activity.workspace.state.models.error != null }
            activity.openSettings()
            activity.click(R.id.delete_button)
            until("it is gone", activity) { name !in activity.items(R.id.model) }
        }
        assertEquals(emptyList<String>(), folder.list()!!.toList())
        until("the other model is open", activity) { "XNNPACK" in activity.text(R.id.runtime) }
        assertFalse(activity.view<Button>(R.id.delete_button).isEnabled) // of the app's own model
        controller.pause().stop().destroy()
    }

    @Test
    fun `two files of one name are both kept, and the same file only once`() {
        val activity = start().get()
        val content = Shipped.file(Shipped.model("float32")).readBytes()
        repeat(2) { activity.pick(R.id.open_button, "mine.tflite", content) } // files are read one after the other
        activity.pick(R.id.open_button, "mine.tflite", Shipped.file(Shipped.model("int8")).readBytes(), authority = "other")
        until("two files are there", activity) { File(app.filesDir, "models").list().orEmpty().toSet() == setOf("mine.tflite", "mine-2.tflite") }
        until("both int8 files are choices", activity) { activity.items(R.id.precision).count { it.startsWith("int8 · ") } == 2 }
        assertEquals(3, activity.items(R.id.precision).distinct().size)
        activity.workspace.rename(activity.workspace.state.chosen!!, "my net")
        until("it is renamed", activity) { File(app.filesDir, "models/my_net.tflite").isFile }
        until("it is chosen", activity) { activity.workspace.state.chosen?.source?.file == "my_net.tflite" }
    }

    @Test
    fun `a provider that refuses a document's name is no obstacle`() {
        Robolectric.setupContentProvider(Refusing::class.java, "refusing")
        val activity = start().get()
        activity.pick(R.id.open_button, "mine", Shipped.file(Shipped.model("float32")).readBytes(), authority = "refusing")
        until("float32 is open", activity) { activity.view<Spinner>(R.id.precision).selectedItem == "float32" }
        assertEquals(listOf("mine.tflite"), File(app.filesDir, "models").list()!!.toList())
    }

    /** A provider that lets nobody ask for names. */
    class Refusing : ContentProvider() {
        override fun onCreate() = true

        override fun query(uri: Uri, p: Array<String>?, s: String?, a: Array<String>?, o: String?): Cursor = throw SecurityException("refused")

        override fun getType(uri: Uri): String? = null

        override fun insert(uri: Uri, values: ContentValues?): Uri? = null

        override fun delete(uri: Uri, s: String?, a: Array<String>?) = 0

        override fun update(uri: Uri, v: ContentValues?, s: String?, a: Array<String>?) = 0
    }

    @Test
    fun `a provider that fails in any way shows a message`() {
        val activity = start().get()
        for ((button, prefix) in listOf(R.id.photo_button to "The photo cannot be read", R.id.open_button to "The model cannot be read")) {
            val uri = Uri.parse("content://failing/$button")
            shadowOf(app.contentResolver).registerInputStreamSupplier(uri) { throw IllegalArgumentException("the volume is gone") }
            activity.click(button)
            shadowOf(activity).receiveResult(shadowOf(activity).nextStartedActivityForResult.intent, Activity.RESULT_OK, Intent().setData(uri))
            until("it is shown", activity) { activity.text(R.id.message) == "$prefix: the volume is gone" }
        }
    }

    @Test
    fun `back closes the settings before it leaves the app`() {
        val activity = start().get()
        activity.openSettings()
        assertTrue(activity.isShown(R.id.sheet_content))
        @Suppress("DEPRECATION")
        activity.onBackPressed()
        assertFalse(activity.isShown(R.id.sheet_content))
        assertFalse(activity.isFinishing)
    }

    @Test
    fun `only adb's shell and the system may start the benchmark`() {
        val component = ComponentName(app, BenchmarkActivity::class.java)
        assertEquals(Manifest.permission.DUMP, app.packageManager.getActivityInfo(component, 0).permission)
    }

    private fun benchmark(folder: String?, change: Intent.() -> Unit = {}): Activity {
        val intent = Intent(app, BenchmarkActivity::class.java).putExtra("folder", folder).putExtra("runs", 3).putExtra("warmup", 1)
            .putExtra("threads", "1,2").putExtra("delegate", "xnnpack").apply(change)
        return started(BenchmarkActivity::class.java, intent)
    }

    private fun measurement(folder: File): JsonObject {
        val file = File(folder, "measurement.json")
        until("the measurement is written") { file.isFile }
        return Json.parseToJsonElement(file.readText()).jsonObject
    }

    @Test
    fun `an intent measures the model in its folder`() {
        val folder = File(app.filesDir, "benchmark/abc123").apply { mkdirs() }
        Shipped.file(Shipped.model("int8")).copyTo(File(folder, "model.tflite"))
        File(folder, "measurement.json").writeText("an older one")
        benchmark("abc123")
        until("the old measurement is replaced") { File(folder, "measurement.json").let { it.isFile && "older" !in it.readText() } }
        val written = measurement(folder)
        assertEquals(written.toString(), 2, written.getValue("latency").jsonArray.size)
        val device = written.getValue("device").jsonObject
        assertTrue(device.toString(), "Android" in device.getValue("host").jsonPrimitive.content)
        assertNotNull(device["abi"])
    }

    @Test
    fun `an invalid intent writes its reason to its folder`() {
        val folder = File(app.filesDir, "benchmark/bad").apply { mkdirs() }
        for ((change, words) in listOf<Pair<Intent.() -> Unit, String>>(
            { _: Intent -> } to "model.tflite",
            { intent: Intent -> intent.putExtra("threads", "many"); Unit } to "threads must be",
            { intent: Intent -> intent.putExtra("delegate", "tpu"); Unit } to "delegate must be",
            { intent: Intent -> intent.putExtra("runs", "five"); Unit } to "runs must be",
        )) {
            File(folder, "measurement.json").delete()
            benchmark("bad", change)
            assertTrue(measurement(folder).getValue("error").jsonPrimitive.content.contains(words))
        }
    }

    @Test
    fun `an intent cannot access other folders`() {
        val outside = File(app.filesDir, "benchmark").apply { mkdirs() }.parentFile!!
        Shipped.file(Shipped.model("int8")).copyTo(File(outside, "model.tflite"))
        for (folder in listOf(null, "", "..", "../..", "a/b", "missing")) {
            val activity = benchmark(folder)
            until("it is rejected") { "folder must be" in activity.text(R.id.message) }
        }
        assertFalse(File(outside, "measurement.json").exists())
    }
}

/** The oldest supported Android. Robolectric's legacy graphics cannot decode photos. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [24])
@GraphicsMode(GraphicsMode.Mode.LEGACY)
class Api24Test : ActivitiesTest()

/** The target Android, with native graphics: photos are decoded and the screen is drawn. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], qualifiers = "w411dp-h891dp-xhdpi")
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class Api35Test : ActivitiesTest() {
    @Test
    fun `an invalid photo shows a message`() {
        val activity = start().get()
        for (content in listOf("no photo".toByteArray(), ByteArray(0), png(Shipped.photos[0]).copyOf(20))) {
            activity.pick(R.id.photo_button, "broken.png", content)
            until("the photo is rejected", activity) { activity.text(R.id.message).startsWith("The photo cannot be read") }
            activity.workspace.showProblem(null)
        }
    }

    @Test
    fun `a chosen photo has the same classes as in Python, also after a rotation`() {
        val controller = start()
        val model = Shipped.model("int8")
        val expected = Shipped.predictions(model)[0].getValue("top").jsonArray.map { it.jsonPrimitive.content.toInt() }
        val labels = Json.parseToJsonElement(Shipped.sidecar(model)).jsonObject.getValue("labels").jsonArray.map { it.jsonPrimitive.content }
        controller.get().pickPhoto(0)
        assertEquals(expected.map { labels[it] }, controller.get().labels())
        assertTrue(controller.get().text(R.id.timings), "preprocess" in controller.get().text(R.id.timings))
        controller.recreate()
        assertEquals(expected.map { labels[it] }, controller.get().labels())
        assertEquals(View.VISIBLE, controller.get().view<ImageView>(R.id.photo).visibility)
    }

    @Test
    fun `the threshold hides less probable classes`() {
        val activity = start().get()
        activity.pickPhoto(0)
        val probabilities = Shipped.predictions(Shipped.model("int8"))[0].getValue("probabilities").jsonArray.map { it.jsonPrimitive.double * 100 }
        val percent = (1..99).first { p -> probabilities.none { abs(it - p) < 0.2 } && probabilities.count { it >= p } in 1..3 }
        activity.view<SeekBar>(R.id.threshold).progress = percent
        assertEquals(probabilities.count { it >= percent }, activity.labels().size)
        activity.view<SeekBar>(R.id.threshold).progress = 100
        assertEquals("No class reaches 100 %.", activity.text(R.id.message))
    }

    @Test
    fun `two models are compared on one photo`() {
        val activity = start().get()
        activity.pick(R.id.open_button, "mine.tflite", Shipped.file(Shipped.model("float32")).readBytes())
        until("float32 is open", activity) { activity.view<Spinner>(R.id.precision).selectedItem == "float32" }
        activity.choose(R.id.compare, "efficientnet_lite0 · int8")
        activity.pickPhoto(0)
        until("both have classified it", activity) { activity.labels(R.id.second_predictions).size == 5 }
        for ((rows, scheme) in listOf(R.id.predictions to "float32", R.id.second_predictions to "int8")) {
            val model = Shipped.model(scheme)
            val labels = Json.parseToJsonElement(Shipped.sidecar(model)).jsonObject.getValue("labels").jsonArray.map { it.jsonPrimitive.content }
            val top = Shipped.predictions(model)[0].getValue("top").jsonArray.map { labels[it.jsonPrimitive.content.toInt()] }
            assertEquals(top, activity.labels(rows))
        }
        assertEquals("The same first class. The same in 1 of 1 picture.", activity.text(R.id.agreement))
        assertTrue(activity.text(R.id.second_title), activity.text(R.id.second_title).startsWith("int8\n"))
        activity.choose(R.id.compare, "nothing")
        until("one model is left", activity) { !activity.isShown(R.id.second) }
    }

    @Test
    fun `the screen is shared as a picture with the predictions`() {
        val activity = start().get()
        activity.pickPhoto(0)
        shadowOf(activity).clickMenuItem(R.id.share)
        idle()
        @Suppress("DEPRECATION")
        val shared = shadowOf(activity).nextStartedActivity.extras!!.get(Intent.EXTRA_INTENT) as Intent
        assertEquals("image/png", shared.type)
        assertTrue(activity.labels().first() in shared.getStringExtra(Intent.EXTRA_TEXT)!!)
        assertTrue(SharedFiles.file(app, "edge_cv.png").length() > 1000)
    }
}
