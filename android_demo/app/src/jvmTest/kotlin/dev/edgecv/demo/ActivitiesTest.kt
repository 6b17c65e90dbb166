package dev.edgecv.demo

import android.Manifest
import android.app.Activity
import android.app.Application
import android.content.Context
import android.content.Intent
import android.content.pm.PackageManager
import android.graphics.Bitmap
import android.graphics.Canvas
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraManager
import android.net.Uri
import android.os.Looper
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.ImageView
import android.widget.SeekBar
import android.widget.Spinner
import android.widget.TextView
import dev.edgecv.core.Photo
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.double
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotNull
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import org.robolectric.shadows.ShadowCameraCharacteristics
import java.awt.image.BufferedImage
import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.File
import java.io.FileOutputStream
import java.time.Duration
import java.util.concurrent.TimeUnit
import javax.imageio.ImageIO
import kotlin.math.abs

/** The app's activities on the framework's real code, with the app's resources, models and TensorFlow Lite. */
abstract class ActivitiesTest {
    private val app: Application = RuntimeEnvironment.getApplication()
    private val controllers = mutableListOf<ActivityController<*>>()

    @Before
    fun load() {
        if (!loaded) Shipped.loadDesktopLibrary()
        loaded = true
    }

    @After
    fun close() = controllers.forEach { it.pause().stop().destroy() }

    protected fun start(): ActivityController<MainActivity> {
        val controller = Robolectric.buildActivity(MainActivity::class.java).setup()
        controllers += controller
        until("the model is open", controller.get()) { "XNNPACK" in controller.get().text(R.id.runtime) }
        return controller
    }

    private fun until(what: String, activity: Activity? = null, holds: () -> Boolean) {
        val end = System.nanoTime() + TimeUnit.SECONDS.toNanos(30)
        while (!holds()) {
            shadowOf(Looper.getMainLooper()).idleFor(Duration.ofMillis(20)) // a frame and its layout
            check(System.nanoTime() < end) { "timeout while waiting until $what; message: ${activity?.text(R.id.message)}" }
            Thread.sleep(10)
        }
    }

    private fun Activity.text(id: Int) = findViewById<TextView>(id)!!.text.toString()

    private fun Activity.labels(): List<String> {
        val rows = findViewById<ViewGroup>(R.id.predictions)!!
        return (0 until rows.childCount).map { rows.getChildAt(it).findViewById<TextView>(R.id.label)!!.text.toString() }
    }

    private fun Activity.choose(spinner: Int, text: String) {
        val view = findViewById<Spinner>(spinner)!!
        view.setSelection((0 until view.count).first { view.getItemAtPosition(it) == text })
    }

    /** Clicks a button that opens the system's file picker, and picks a file. */
    private fun Activity.pick(button: Int, name: String, content: ByteArray) {
        val uri = Uri.parse("content://test/$name")
        shadowOf(app.contentResolver).registerInputStreamSupplier(uri) { ByteArrayInputStream(content) }
        findViewById<Button>(button)!!.performClick()
        val request = shadowOf(this).nextStartedActivityForResult
        assertEquals(Intent.ACTION_OPEN_DOCUMENT, request.intent.action)
        shadowOf(this).receiveResult(request.intent, Activity.RESULT_OK, Intent().setData(uri))
    }

    protected fun png(photo: Photo): ByteArray {
        val image = BufferedImage(photo.width, photo.height, BufferedImage.TYPE_INT_RGB)
        for (i in 0 until photo.width * photo.height) {
            val (r, g, b) = (0 until 3).map { photo.rgb[3 * i + it].toInt() and 255 }
            image.setRGB(i % photo.width, i / photo.width, r shl 16 or (g shl 8) or b)
        }
        return ByteArrayOutputStream().also { ImageIO.write(image, "png", it) }.toByteArray()
    }

    private fun addCamera() {
        val characteristics = ShadowCameraCharacteristics.newCameraCharacteristics()
        shadowOf(characteristics).set(CameraCharacteristics.LENS_FACING, CameraCharacteristics.LENS_FACING_BACK)
        shadowOf(characteristics).set(CameraCharacteristics.SENSOR_ORIENTATION, 90)
        shadowOf(app.getSystemService(Context.CAMERA_SERVICE) as CameraManager).addCamera("0", characteristics)
    }

    @Test
    fun `the model in the assets is opened, and the settings are shown`() {
        val activity = start().get()
        assertEquals("efficientnet_lite0", activity.findViewById<Spinner>(R.id.model)!!.selectedItem)
        assertEquals("int8", activity.findViewById<Spinner>(R.id.precision)!!.selectedItem)
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
        controller.get().findViewById<Button>(R.id.camera_button)!!.performClick() // the button requests it again
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
        until("float32 is open") { activity.findViewById<Spinner>(R.id.precision)!!.selectedItem == "float32" && "XNNPACK" in activity.text(R.id.runtime) }
        assertTrue(File(app.filesDir, "models/mine.tflite").isFile)
        activity.choose(R.id.precision, "int8")
        until("int8 is open") { activity.findViewById<Spinner>(R.id.precision)!!.selectedItem == "int8" && "XNNPACK" in activity.text(R.id.runtime) }
    }

    @Test
    fun `the benchmark button measures and shows the path of the file`() {
        val activity = start().get()
        activity.findViewById<Button>(R.id.benchmark_button)!!.performClick()
        until("it is measured") { activity.text(R.id.message).startsWith("Measured") }
        val written = Json.parseToJsonElement(File(app.getExternalFilesDir("benchmark"), "app/measurement.json").readText()).jsonObject
        assertEquals(50, written.getValue("latency").jsonArray.single().jsonObject.getValue("samples_ms").jsonArray.size)
        assertTrue("XNNPACK" in activity.text(R.id.runtime))
    }

    private fun benchmark(folder: String?, change: Intent.() -> Unit = {}): Activity {
        val intent = Intent(app, BenchmarkActivity::class.java).putExtra("folder", folder).putExtra("runs", 3).putExtra("warmup", 1)
            .putExtra("threads", "1,2").putExtra("delegate", "xnnpack").apply(change)
        return Robolectric.buildActivity(BenchmarkActivity::class.java, intent).setup().also { controllers += it }.get()
    }

    private fun measurement(folder: File): JsonObject {
        val file = File(folder, "measurement.json")
        until("the measurement is written") { file.isFile }
        return Json.parseToJsonElement(file.readText()).jsonObject
    }

    @Test
    fun `an intent measures the model in its folder`() {
        val folder = File(app.getExternalFilesDir("benchmark"), "abc123").apply { mkdirs() }
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
        val folder = File(app.getExternalFilesDir("benchmark"), "bad").apply { mkdirs() }
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
        val outside = app.getExternalFilesDir("benchmark")!!.parentFile!!
        Shipped.file(Shipped.model("int8")).copyTo(File(outside, "model.tflite"))
        for (folder in listOf(null, "", "..", "../..", "a/b", "missing")) {
            val activity = benchmark(folder)
            until("it is rejected") { "folder must be" in activity.text(R.id.message) }
        }
        assertFalse(File(outside, "measurement.json").exists())
    }

    protected fun pickPhoto(activity: Activity, n: Int) {
        activity.pick(R.id.photo_button, "photo$n.png", png(Shipped.photos[n]))
        until("the photo is classified") { activity.labels().isNotEmpty() }
    }

    protected fun expectRejectedPhoto(activity: Activity, content: ByteArray) {
        activity.pick(R.id.photo_button, "broken.png", content)
        until("the photo is rejected", activity) { activity.text(R.id.message).startsWith("The photo cannot be read") }
    }

    protected fun shown(activity: Activity) = activity.labels()

    protected fun threshold(activity: Activity, percent: Int) {
        activity.findViewById<SeekBar>(R.id.threshold)!!.progress = percent
    }

    protected fun message(activity: Activity) = activity.text(R.id.message)

    protected fun timings(activity: Activity) = activity.text(R.id.timings)

    private companion object {
        var loaded = false
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
        expectRejectedPhoto(activity, "no photo".toByteArray())
        expectRejectedPhoto(activity, png(Shipped.photos[0]).copyOf(100))
    }

    @Test
    fun `a chosen photo has the same classes as in Python, also after a rotation`() {
        val controller = start()
        val model = Shipped.model("int8")
        val expected = Shipped.predictions(model)[0].getValue("top").jsonArray.map { it.jsonPrimitive.content.toInt() }
        val labels = Json.parseToJsonElement(Shipped.sidecar(model)).jsonObject.getValue("labels").jsonArray.map { it.jsonPrimitive.content }
        pickPhoto(controller.get(), 0)
        assertEquals(expected.map { labels[it] }, shown(controller.get()))
        assertTrue(timings(controller.get()), "preprocess" in timings(controller.get()))
        controller.recreate()
        assertEquals(expected.map { labels[it] }, shown(controller.get()))
        assertEquals(View.VISIBLE, controller.get().findViewById<ImageView>(R.id.photo)!!.visibility)
    }

    @Test
    fun `the threshold hides less probable classes`() {
        val activity = start().get()
        pickPhoto(activity, 0)
        val probabilities = Shipped.predictions(Shipped.model("int8"))[0].getValue("probabilities").jsonArray.map { it.jsonPrimitive.double * 100 }
        val percent = (1..99).first { p -> probabilities.none { abs(it - p) < 0.2 } && probabilities.count { it >= p } in 1..3 }
        threshold(activity, percent)
        assertEquals(probabilities.count { it >= percent }, shown(activity).size)
        threshold(activity, 100)
        assertEquals("No class reaches 100 %.", message(activity))
    }

    @Test
    @Config(qualifiers = "w411dp-h891dp-night-xhdpi")
    fun `the screen is drawn in dark mode`() = draw("night")

    @Test
    fun `the screen is drawn`() = draw("day")

    @Test
    @Config(qualifiers = "w891dp-h411dp-land-xhdpi")
    fun `the screen is drawn in landscape`() = draw("land")

    private fun draw(name: String) {
        val activity = start().get()
        pickPhoto(activity, CAT)
        val view = activity.window.decorView
        val bitmap = Bitmap.createBitmap(view.width, view.height, Bitmap.Config.ARGB_8888)
        view.draw(Canvas(bitmap))
        val colours = (0 until view.height step 7).flatMap { y -> (0 until view.width step 7).map { x -> bitmap.getPixel(x, y) } }.distinct()
        assertTrue("${colours.size} colours", colours.size > 100) // the photo is among them
        FileOutputStream(File(System.getProperty("edgecv.vectors"), "../screen-$name.png")).use { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }
    }

    private companion object {
        const val CAT = 21 // scikit-image's photo, which is in the public domain
    }
}
