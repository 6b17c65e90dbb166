package dev.edgecv.demo

import android.app.Activity
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Rect
import android.view.View
import android.view.ViewGroup
import android.widget.TextView
import dev.edgecv.core.Accuracy
import dev.edgecv.core.LabelledPhoto
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import java.io.File
import kotlin.math.abs

/** The screens as Android 15 draws them, compared with the pictures in the documentation, and on other displays. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], qualifiers = PHONE)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class PicturesTest : AppTest() {
    private fun Activity.drawn(): Bitmap {
        idle()
        val view = window.decorView
        return Bitmap.createBitmap(view.width, view.height, Bitmap.Config.ARGB_8888).also { view.draw(Canvas(it)) }
    }

    /** Compares the screen, at half its size, with a picture in `docs`; the times are replaced, because they differ in each run. */
    private fun Activity.expectPicture(name: String) {
        view<TextView>(R.id.timings).text = getString(R.string.timings, 3.1, 8.9, 12.2, 100, 14.0)
        view<TextView>(R.id.first_title).run { text = text.lines().first() + "\n12.2 ms" }
        view<TextView>(R.id.second_title).run { text = text.lines().first() + "\n9.8 ms" }
        if (" ms median" in text(R.id.measured_text)) view<TextView>(R.id.measured_text).run {
            text = resources.getQuantityString(R.plurals.measured_latency, 50, 8.91, 9.4, 50, "tensorflow-lite 2.16.1 XNNPACK", 1)
        }
        val full = drawn()
        val picture = Bitmap.createScaledBitmap(full, full.width / 2, full.height / 2, true)
        val made = File(System.getProperty("edgecv.vectors"), "../pictures/$name.png").apply { parentFile!!.mkdirs() }
        made.outputStream().use { picture.compress(Bitmap.CompressFormat.PNG, 100, it) }
        val golden = File(System.getProperty("edgecv.docs"), "$name.png")
        assertTrue("${golden.name} is missing; if $made is right, copy it there", golden.isFile)
        val expected = BitmapFactory.decodeFile(golden.path)
        assertEquals(listOf(expected.width, expected.height), listOf(picture.width, picture.height))
        val differences = (0 until picture.height).sumOf { y ->
            (0 until picture.width).count { x -> difference(expected.getPixel(x, y), picture.getPixel(x, y)) > 40 }
        }
        val share = differences.toDouble() / (picture.width * picture.height)
        assertTrue("${share * 100} % of the pixels differ from $golden; if $made is right, copy it there", share < 0.01)
    }

    private fun difference(one: Int, other: Int) = listOf<(Int) -> Int>(Color::red, Color::green, Color::blue).maxOf { abs(it(one) - it(other)) }

    @Test
    fun `a photo and its classes`() {
        val activity = start().get()
        activity.pickPhoto(CAT)
        activity.expectPicture("android")
    }

    @Test
    @Config(qualifiers = "w411dp-h891dp-night-xhdpi")
    fun `a photo and its classes in dark mode`() {
        val activity = start().get()
        activity.pickPhoto(CAT)
        activity.expectPicture("android_dark")
    }

    @Test
    fun `two models on one photo`() {
        val activity = start().get()
        activity.pick(R.id.open_button, "float.tflite", Shipped.file(Shipped.model("float32")).readBytes())
        until("float32 is open", activity) { activity.workspace.state.models.model?.record?.scheme == "float32" }
        activity.choose(R.id.compare, "efficientnet_lite0 · int8")
        activity.pickPhoto(CAT)
        until("both have classified it", activity) { activity.labels(R.id.second_predictions).size == 5 }
        activity.expectPicture("android_compare")
    }

    @Test
    fun `the result of a benchmark`() {
        val activity = start().get()
        activity.pickPhoto(CAT)
        activity.click(R.id.benchmark_button)
        until("it is measured", activity) { activity.isShown(R.id.measured) && activity.labels().size == 5 }
        activity.expectPicture("android_benchmark")
    }

    @Test
    fun `the settings`() {
        val activity = start().get()
        activity.pickPhoto(CAT)
        activity.openSettings()
        activity.expectPicture("android_settings")
    }

    @Test
    fun `the accuracy on labelled photos`() {
        val activity = start().get()
        activity.pickPhoto(CAT)
        val session = activity.workspace.session
        val label = activity.labels().first()
        val photos = List(48) { LabelledPhoto(label) { Shipped.photos[CAT] } } + List(2) { LabelledPhoto("tench") { Shipped.photos[CAT] } }
        session.evaluate(Accuracy(photos, AndroidMachine(app))) {}
        until("it is measured", activity) { activity.isShown(R.id.measured) }
        activity.expectPicture("android_accuracy")
    }

    // ------------------------------------------------------------------------------------------------ on other displays

    private fun Activity.bounds(id: Int) = Rect().also { assertTrue(view<View>(id).getGlobalVisibleRect(it)) }

    private fun Activity.expectReachable() {
        for (id in listOf(R.id.camera_button, R.id.photo_button, R.id.open_button, R.id.benchmark_button)) {
            val view = view<View>(id)
            assertEquals(resources.getResourceEntryName(id), listOf(view.width, view.height), bounds(id).run { listOf(width(), height()) })
            assertTrue(view.height >= 48 * resources.displayMetrics.density)
        }
        val percentages = view<ViewGroup>(R.id.predictions).run { (0 until childCount).map { getChildAt(it).findViewById<TextView>(R.id.probability)!! } }
        assertEquals(5, percentages.size)
        for (text in percentages) assertEquals(text.text.toString(), 1, text.lineCount)
        assertTrue(bounds(R.id.predictions).height() > 0)
    }

    private fun expectReachable(name: String): Activity {
        val activity = start().get()
        activity.pickPhoto(CAT)
        val bitmap = activity.drawn()
        File(System.getProperty("edgecv.vectors"), "../pictures/$name.png").apply { parentFile!!.mkdirs() }.outputStream()
            .use { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }
        activity.expectReachable()
        return activity
    }

    @Test
    @Config(fontScale = 2.0f)
    fun `at twice the font size percentages have one line, and all buttons are on the screen`() {
        expectReachable("large_font")
    }

    @Test
    @Config(qualifiers = "w360dp-h640dp-hdpi")
    fun `on a small phone all buttons are on the screen`() {
        expectReachable("small")
    }

    @Test
    @Config(qualifiers = "w891dp-h411dp-land-xhdpi")
    fun `in landscape the card is beside the picture`() {
        val activity = expectReachable("landscape")
        assertTrue(activity.bounds(R.id.card).left >= activity.bounds(R.id.photo).right)
    }

    @Test
    @Config(qualifiers = "w1280dp-h800dp-land-mdpi")
    fun `on a tablet the settings take a part of the width`() {
        val activity = expectReachable("tablet")
        activity.openSettings()
        assertEquals(420, activity.view<View>(R.id.sheet_content).width)
    }

    @Test
    @Config(qualifiers = "ar-ldrtl-w411dp-h891dp-xhdpi")
    fun `in a right-to-left language the percentages are on the left`() {
        val activity = expectReachable("rtl")
        val row = activity.view<ViewGroup>(R.id.predictions).getChildAt(0)
        assertTrue(row.findViewById<View>(R.id.probability)!!.left < row.findViewById<View>(R.id.label)!!.left)
    }

    @Test
    fun `TalkBack reads each class with its percentage, in the order of the screen, and every setting has a label`() {
        val activity = start().get()
        activity.pickPhoto(CAT)
        activity.openSettings()
        val first = activity.view<ViewGroup>(R.id.predictions).getChildAt(0)
        val prediction = activity.workspace.state.models.model!!.predictions.first()
        assertTrue(first.contentDescription.toString(), first.contentDescription.startsWith("${prediction.label}, "))
        val labelled = views(activity.window.decorView).map { it.labelFor }.toSet()
        for (id in listOf(R.id.model, R.id.precision, R.id.compare, R.id.delegate, R.id.threads, R.id.threshold)) {
            assertTrue(activity.resources.getResourceEntryName(id), id in labelled)
        }
        for (button in views(activity.window.decorView).filterIsInstance<android.widget.ImageButton>()) {
            assertFalse("$button", button.contentDescription.isNullOrEmpty())
        }
    }

    private fun views(view: View): List<View> =
        listOf(view) + if (view is ViewGroup) (0 until view.childCount).flatMap { views(view.getChildAt(it)) } else emptyList()

    @Test
    fun `the status bar's icons are white on the picture and dark on a light screen`() {
        fun light(theme: Int): Boolean {
            val values = app.resources.newTheme().apply { applyStyle(theme, true) }.obtainStyledAttributes(intArrayOf(android.R.attr.windowLightStatusBar))
            return try { values.getBoolean(0, false) } finally { values.recycle() }
        }
        assertFalse(light(R.style.CameraTheme))
        assertTrue(light(R.style.PlainTheme))
        val activity = start().get()
        activity.pickPhoto(CAT)
        val bitmap = activity.drawn()
        val top = (0 until bitmap.width step 9).map { Color.luminance(bitmap.getPixel(it, 4)) }
        assertTrue("${top.max()}", top.max() < 0.4)
    }

    private companion object {
        const val CAT = 21 // scikit-image's photo, which is in the public domain
    }
}

private const val PHONE = "w411dp-h891dp-xhdpi"
