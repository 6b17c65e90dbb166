package dev.edgecv.demo

import android.app.Activity
import android.app.Application
import android.content.Context
import android.content.Intent
import android.graphics.ImageFormat
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraManager
import android.net.Uri
import android.os.Looper
import android.util.Size
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.Spinner
import android.widget.TextView
import dev.edgecv.core.Photo
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Before
import org.robolectric.Robolectric
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import org.robolectric.shadows.ShadowCameraCharacteristics
import org.robolectric.shadows.StreamConfigurationMapBuilder
import java.awt.image.BufferedImage
import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.time.Duration
import java.util.concurrent.TimeUnit
import javax.imageio.ImageIO

/** What the tests of the app's screens share: the app on the framework's real code, with its resources, models and library. */
abstract class AppTest {
    protected val app: Application = RuntimeEnvironment.getApplication()
    private val controllers = mutableListOf<ActivityController<*>>()

    @Before
    fun load() {
        if (!loaded) Shipped.loadDesktopLibrary()
        loaded = true
    }

    @After
    fun close() = controllers.forEach { if (!it.get().isDestroyed) it.pause().stop().destroy() }

    protected fun start(): ActivityController<MainActivity> {
        val controller = Robolectric.buildActivity(MainActivity::class.java).also { controllers += it }.setup()
        until("the model is open", controller.get()) { "XNNPACK" in controller.get().text(R.id.runtime) }
        return controller
    }

    protected fun <T : Activity> started(type: Class<T>, intent: Intent): T =
        Robolectric.buildActivity(type, intent).also { controllers += it }.setup().get()

    protected fun until(what: String, activity: Activity? = null, holds: () -> Boolean) {
        val end = System.nanoTime() + TimeUnit.SECONDS.toNanos(60)
        while (!holds()) {
            shadowOf(Looper.getMainLooper()).idleFor(Duration.ofMillis(20)) // a frame and its layout
            check(System.nanoTime() < end) { "timeout while waiting until $what; message: ${activity?.text(R.id.message)}" }
            Thread.sleep(10)
        }
    }

    protected fun idle() = shadowOf(Looper.getMainLooper()).idleFor(Duration.ofMillis(40))

    protected fun <T : View> Activity.view(id: Int): T = findViewById<T>(id)!!

    protected fun Activity.text(id: Int) = view<TextView>(id).text.toString()

    protected fun Activity.isShown(id: Int) = view<View>(id).isShown

    protected fun Activity.labels(rows: Int = R.id.predictions): List<String> = view<ViewGroup>(rows).run {
        (0 until childCount).map { getChildAt(it).findViewById<TextView>(R.id.label)!!.text.toString() }
    }

    protected fun Activity.click(id: Int) = view<View>(id).performClick()

    protected fun Activity.openSettings() {
        shadowOf(this).clickMenuItem(R.id.settings)
        idle()
    }

    /** Opens the settings, chooses an item of a spinner, and closes them. */
    protected fun Activity.choose(spinner: Int, text: String) {
        openSettings()
        val view = view<Spinner>(spinner)
        view.setSelection((0 until view.count).first { view.getItemAtPosition(it) == text })
        idle()
        click(R.id.sheet_close)
    }

    protected fun Activity.items(spinner: Int): List<String> =
        view<Spinner>(spinner).run { (0 until count).map { getItemAtPosition(it).toString() } }

    /** Clicks a button that opens the system's file picker, and picks a file. */
    protected fun Activity.pick(button: Int, name: String, content: ByteArray, authority: String = "test") {
        val uri = Uri.parse("content://$authority/$name")
        shadowOf(app.contentResolver).registerInputStreamSupplier(uri) { ByteArrayInputStream(content) }
        view<Button>(button).performClick()
        val request = shadowOf(this).nextStartedActivityForResult
        assertEquals(Intent.ACTION_OPEN_DOCUMENT, request.intent.action)
        shadowOf(this).receiveResult(request.intent, Activity.RESULT_OK, Intent().setData(uri))
    }

    protected fun Activity.pickPhoto(n: Int) {
        pick(R.id.photo_button, "photo$n.png", png(Shipped.photos[n]))
        until("the photo is classified", this) { labels().isNotEmpty() }
    }

    protected fun png(photo: Photo): ByteArray {
        val image = BufferedImage(photo.width, photo.height, BufferedImage.TYPE_INT_RGB)
        for (i in 0 until photo.width * photo.height) {
            val (r, g, b) = (0 until 3).map { photo.rgb[3 * i + it].toInt() and 255 }
            image.setRGB(i % photo.width, i / photo.width, r shl 16 or (g shl 8) or b)
        }
        return ByteArrayOutputStream().also { ImageIO.write(image, "png", it) }.toByteArray()
    }

    protected val cameras get() = app.getSystemService(Context.CAMERA_SERVICE) as CameraManager

    /** Adds a back camera whose sensor is mounted at [sensor] degrees. */
    protected fun addCamera(sensor: Int = 90) {
        val characteristics = ShadowCameraCharacteristics.newCameraCharacteristics()
        val sizes = StreamConfigurationMapBuilder.newBuilder()
        for (size in listOf(Size(640, 480), Size(1920, 1080), Size(1440, 1080))) {
            sizes.addOutputSize(ImageFormat.YUV_420_888, size).addOutputSize(ImageFormat.PRIVATE, size).addOutputSize(size)
        }
        shadowOf(characteristics).run {
            set(CameraCharacteristics.LENS_FACING, CameraCharacteristics.LENS_FACING_BACK)
            set(CameraCharacteristics.SENSOR_ORIENTATION, sensor)
            set(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP, sizes.build())
        }
        shadowOf(cameras).addCamera("0", characteristics)
    }

    protected fun surface() = SurfaceTexture(1)

    private companion object {
        var loaded = false
    }
}
