;;; rlm-stream-test.el --- Text that grows into a buffer -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Streams are driven by their own timers, as in use.

;;; Code:

(require 'rlm-test)
(require 'rlm-stream)

(defmacro rlm-test-with-stream (&rest body)
  "Run BODY in an Org buffer with `stream' between two lines of text."
  (declare (indent 0) (debug t))
  `(let ((buffer (generate-new-buffer "stream")))
     (unwind-protect
         (with-current-buffer buffer
           (org-mode)
           (insert "before\nafter\n")
           (let ((stream (rlm--stream-open buffer 8)))
             ,@body))
       (when (buffer-live-p buffer) (kill-buffer buffer)))))

(defun rlm-test-stream-text (stream)
  "Return what STREAM shows."
  (buffer-substring-no-properties (rlm--stream-beg stream) (rlm--stream-end stream)))

(defun rlm-test-stream-idle (stream)
  "Wait until STREAM has inserted what it was given."
  (rlm-test-await (and (null (rlm--stream-timer stream))
                       (null (rlm--stream-pending stream)))))

(defun rlm-test-stream-finish (stream)
  "Close STREAM and wait until it is done."
  (let ((done nil))
    (rlm--stream-close stream (lambda () (setq done t)))
    (rlm-test-await done)))

(ert-deftest rlm-stream-any-cut-gives-the-same-text ()
  "However the text is cut into pieces, and whenever it is inserted, the end is one."
  (let* ((text "# Title\n\nSome **bold** `co~de` text\n```python\n* x\n```\n> q\n\n* item\n[a](http://b)\nlast **b**")
         (whole (with-temp-buffer
                  (let* ((state (rlm--org-make)))
                    (concat (mapconcat (lambda (line) (rlm--org-line line state))
                                       (split-string text "\n") "\n")
                            "\n")))))
    (dolist (size '(1 2 3 7 1000))
      (rlm-test-with-stream
        (let ((from 0))
          (while (< from (length text))
            (let ((to (min (length text) (+ from size))))
              (rlm--stream-write stream (substring text from to))
              (rlm--stream-tick stream) ; as if time had passed
              (should-not (string-match-p "^\\*+ " (buffer-string)))
              (setq from to))))
        (rlm-test-stream-finish stream)
        (should (equal (cons size whole) (cons size (rlm-test-stream-text stream))))
        (should (string-prefix-p "before\n" (buffer-string)))
        (should (string-suffix-p "\nafter\n" (buffer-string)))))))

(ert-deftest rlm-stream-the-growing-line-shows ()
  "An unfinished line is visible, converted as far as it is decided."
  (rlm-test-with-stream
    (rlm--stream-write stream "so **far")
    (rlm-test-stream-idle stream)
    (should (equal (rlm-test-stream-text stream) "so **far"))
    (rlm--stream-write stream "** so")
    (rlm-test-stream-idle stream)
    (should (equal (rlm-test-stream-text stream) "so *far* so"))
    (rlm--stream-write stream "\n``")
    (rlm-test-stream-idle stream)
    (should (equal (rlm-test-stream-text stream) "so *far* so\n"))))

(ert-deftest rlm-stream-pieces-are-gathered ()
  "A thousand pieces at once cost one insertion."
  (rlm-test-with-stream
    (let ((count 0))
      (add-hook 'after-change-functions (lambda (&rest _) (cl-incf count)) nil t)
      (dotimes (_ 1000) (rlm--stream-write stream "go "))
      (should (= 1 (seq-count (lambda (timer) (eq #'rlm--stream-tick (timer--function timer)))
                              timer-list)))
      (rlm-test-stream-idle stream)
      (should (= count 1))
      (should (= 3000 (length (rlm-test-stream-text stream)))))))

;; "At once" and "soon" are what the stream means to wait for, with an
;; interval of an hour: no test is a race with the clock.

(ert-deftest rlm-stream-what-comes-first-is-inserted-at-once ()
  "The first words wait for nothing, those that follow wait for their turn."
  (rlm-test-with-stream
    (let ((rlm--stream-interval 3600))
      (rlm--stream-write stream "first")
      (rlm-test-stream-idle stream)
      (should (equal "first" (rlm-test-stream-text stream)))
      (rlm--stream-write stream " second")
      (should (time-less-p (time-add nil 1800) (timer--time (rlm--stream-timer stream))))
      (rlm--stream-stop stream))))

(ert-deftest rlm-stream-what-is-left-over-comes-soon ()
  "A backlog is not told twenty times a second: it would come minutes late."
  (rlm-test-with-stream
    (let ((rlm--stream-interval 3600)
          (rlm--stream-seconds 0)
          (text (mapconcat #'identity (make-list 5000 "a line of text") "\n")))
      (rlm--stream-write stream text)
      (rlm-test-await (not (rlm--stream-more-p stream)))
      (should (string-prefix-p (rlm-test-stream-text stream) text)))))

(ert-deftest rlm-stream-a-huge-answer-comes-in-parts ()
  "No insertion takes more than its share, and all of the text arrives."
  (rlm-test-with-stream
    (let ((rlm--stream-seconds 0)
          (largest 0)
          (text (mapconcat #'identity (make-list 20000 "a line of text") "\n")))
      (add-hook 'after-change-functions
                (lambda (beg end _) (setq largest (max largest (- end beg)))) nil t)
      (rlm--stream-write stream text)
      (rlm-test-stream-finish stream)
      (should (< largest (* 2 rlm--stream-chars)))
      (should (equal (concat text "\n") (rlm-test-stream-text stream))))))

(ert-deftest rlm-stream-where-there-is-time-more-is-taken ()
  "What can be converted in time goes in by one insertion, however much it is."
  (rlm-test-with-stream
    (let ((rlm--stream-seconds rlm-test-patience)
          (count 0)
          (text (mapconcat #'identity (make-list 2000 "a line of text") "\n")))
      (add-hook 'after-change-functions (lambda (&rest _) (cl-incf count)) nil t)
      (dolist (part (list (substring text 0 5000) (substring text 5000 5001) (substring text 5001)))
        (rlm--stream-write stream part))
      (rlm-test-stream-finish stream)
      (should (= count 1))
      (should (equal (concat text "\n") (rlm-test-stream-text stream))))))

(ert-deftest rlm-stream-a-huge-line-is-not-converted-again-and-again ()
  "A line without end is taken in stretches; the text arrives whole."
  (rlm-test-with-stream
    (let ((word (make-string 500 ?x)))
      (dotimes (_ 100)
        (rlm--stream-write stream word)
        (rlm--stream-tick stream)
        (should (<= (length (rlm--stream-partial stream)) rlm--stream-line)))
      (rlm-test-stream-finish stream)
      (should (equal (rlm-test-stream-text stream) (concat (make-string 50000 ?x) "\n"))))))

(ert-deftest rlm-stream-point-stays ()
  "Point before, in and after the stream stays on its text; at the end it follows."
  (rlm-test-with-stream
    (rlm--stream-write stream "one two")
    (rlm-test-stream-idle stream)
    (save-window-excursion
      (set-window-buffer nil buffer)
      (set-window-point nil (goto-char 3))
      (rlm--stream-write stream " three\nfour")
      (rlm-test-stream-idle stream)
      (should (= 3 (point) (window-point)))
      (set-window-point nil (goto-char (+ 4 (rlm--stream-beg stream))))
      (rlm--stream-write stream " five\nsix")
      (rlm-test-stream-idle stream)
      (should (looking-at "two three"))
      ;; In the line that is growing, too.
      (set-window-point nil (goto-char (- (rlm--stream-end stream) 2)))
      (rlm--stream-write stream "ty")
      (rlm-test-stream-idle stream)
      (should (looking-at "ixty"))
      (set-window-point nil (goto-char (point-max)))
      (rlm--stream-write stream " seven\n")
      (rlm-test-stream-idle stream)
      (should (eobp))
      (set-window-point nil (goto-char (rlm--stream-end stream)))
      (rlm--stream-write stream "eight")
      (rlm-test-stream-idle stream)
      (should (= (point) (window-point) (rlm--stream-end stream)))
      (should (looking-back "eight" (line-beginning-position))))))

(ert-deftest rlm-stream-one-may-edit-around-it ()
  "Text put before and after the stream stays outside it; a narrowed buffer is no matter."
  (rlm-test-with-stream
    (rlm--stream-write stream "abc\n")
    (rlm-test-stream-idle stream)
    (save-excursion (goto-char (point-min)) (insert "head "))
    (save-excursion (goto-char (point-max)) (insert "foot\n"))
    (narrow-to-region 1 3)
    (rlm--stream-write stream "def")
    (rlm-test-stream-finish stream)
    (should (= (point-max) 3))
    (widen)
    (should (equal (buffer-string) "head before\nabc\ndef\nafter\nfoot\n"))
    ;; What is typed at its end now is no longer the stream's.
    (goto-char (rlm--stream-end stream))
    (insert "mine")
    (should (equal (rlm-test-stream-text stream) "abc\ndef\n"))))

(ert-deftest rlm-stream-several-in-one-buffer ()
  "Streams side by side do not mix."
  (rlm-test-with-stream
    (let ((second (rlm--stream-open buffer (point-max))))
      (dotimes (i 20)
        (rlm--stream-write stream (format "a%d " i))
        (rlm--stream-write second (format "b%d " i)))
      (rlm-test-stream-finish stream)
      (rlm-test-stream-finish second)
      (should-not (string-search "b" (rlm-test-stream-text stream)))
      (should (string-prefix-p "b0 b1 " (rlm-test-stream-text second))))))

(ert-deftest rlm-stream-a-killed-buffer-ends-it ()
  "With its buffer gone a stream stops, quietly."
  (rlm-test-with-stream
    (let ((said nil))
      (cl-letf (((symbol-function 'message) (lambda (&rest args) (push args said))))
        (rlm--stream-write stream "abc")
        (kill-buffer buffer)
        (rlm--stream-write stream "def")
        (rlm-test-await (null (rlm--stream-timer stream))))
      (should-not said)
      (should-not (rlm--stream-pending stream)))))

(ert-deftest rlm-stream-reset-begins-anew ()
  "After a reset only what comes then is there."
  (rlm-test-with-stream
    (rlm--stream-write stream "```\nin code")
    (rlm-test-stream-idle stream)
    (rlm--stream-reset stream)
    (rlm--stream-write stream "# plain")
    (rlm-test-stream-finish stream)
    (should (equal (buffer-string) "before\n*plain*\nafter\n"))))

(ert-deftest rlm-stream-unconverted-text-is-still-harmless ()
  "With conversion off Markdown stays, but headings and drawers are made plain."
  (rlm-test-with-stream
    (let ((rlm-convert-markdown nil))
      (rlm--stream-write stream "**b** `c`\n* star\n:END:\n")
      (rlm-test-stream-finish stream)
      (should (equal (rlm-test-stream-text stream)
                     (concat "**b** `c`\n" rlm--zwsp "* star\n=:END:=\n"))))))

(provide 'rlm-stream-test)
;;; rlm-stream-test.el ends here
